"""What an answer is worth: EM, F1, precision, recall and cover-EM, as the benchmarks' own scripts have it.

Each is a number in [0, 1] of a prediction against the accepted answers, and of several accepted answers the one counts
that serves the measure best, each measure by itself (`metric_max_over_ground_truths` of SQuAD's script).

Sources: normalisation, EM and F1: SQuAD v1.1, Rajpurkar et al. 2016, arXiv:1606.05250; precision, recall and the rule
for yes and no: HotpotQA, Yang et al. 2018, arXiv:1809.09600; cover-EM: FlashRAG, Jin et al. 2024, arXiv:2405.13576.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recall.answers import normalize

_CLOSED = frozenset({"yes", "no", "noanswer"})


@dataclass(frozen=True, slots=True)
class Scores:
    """The measures of one answer, or their means over many."""

    em: float = 0.0
    """1 where the normalised texts are equal."""
    f1: float = 0.0
    """Harmonic mean of precision and recall."""
    precision: float = 0.0
    """Share of the prediction's tokens that the accepted answer has too, as a bag."""
    recall: float = 0.0
    """Share of the accepted answer's tokens that the prediction has too, as a bag."""
    cover_em: float = 0.0
    """1 where the normalised accepted answer is a part of the normalised prediction, character by character. Its faults
    are kept: `no` is a part of `unknown`, and an answer that normalises to nothing is a part of everything."""


MEASURES = ("em", "f1", "precision", "recall", "cover_em")
"""The names of the measures, in the order shown."""


def measure(prediction: str | None, accepted: Sequence[str]) -> Scores:
    """Measure a prediction; one that is None, because none was given, earns nothing in any measure.

    Args:
        prediction: the answer given.
        accepted: the accepted answers, at least one.

    Raises:
        ValueError: `accepted` is empty.
    """
    if not accepted:
        raise ValueError("an answer cannot be measured without an accepted one")
    if prediction is None:
        return Scores()
    predicted = normalize(prediction)
    each = [_against(predicted, normalize(answer)) for answer in accepted]
    return Scores(*(max(getattr(scores, name) for scores in each) for name in MEASURES))


def _against(predicted: str, wanted: str) -> Scores:
    """The measures of two normalised texts."""
    em, cover = float(predicted == wanted), float(wanted in predicted)
    # An answer of yes or no has no parts: HotpotQA's script gives 0 for all three where either side is one.
    if predicted != wanted and (predicted in _CLOSED or wanted in _CLOSED):
        return Scores(em=em, cover_em=cover)
    predicted_tokens, wanted_tokens = predicted.split(), wanted.split()
    common = (Counter(predicted_tokens) & Counter(wanted_tokens)).total()
    if common == 0:
        return Scores(em=em, cover_em=cover)
    precision, recall = common / len(predicted_tokens), common / len(wanted_tokens)
    return Scores(em, 2 * precision * recall / (precision + recall), precision, recall, cover)
