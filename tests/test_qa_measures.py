import json
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall import answers
from recall.evaluation.qa.measures import MEASURES, Scores, measure
from recall.evaluation.qa.statistics import bootstrap, mcnemar, paired_bootstrap, wilson
from recall.rewards.recall import boxed_answer, well_formed

GOLDEN = [
    json.loads(line) for line in (Path(__file__).parent / "goldens" / "qa_measures.jsonl").read_text().splitlines()
]
DATA = Path(__file__).parents[2] / "shared" / "data"


def plain_normal(text: str) -> str:
    """The definition in the plainest words: lower case, no ASCII punctuation, no articles, single spaces."""
    kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    words, word = [], ""
    for c in kept + " ":
        if c.isalnum():
            word += c
            continue
        words += ["" if word in ("a", "an", "the") else word, " " if word in ("a", "an", "the") else "", c]
        word = ""
    return " ".join("".join(words).split())


def plain_scores(prediction: str, accepted: Sequence[str]) -> dict[str, Fraction]:
    """The measures from their definitions, by counting one token at a time."""
    best = dict.fromkeys(MEASURES, Fraction(0))
    for answer in accepted:
        ours, theirs = plain_normal(prediction), plain_normal(answer)
        left = theirs.split()
        shared = 0
        for token in ours.split():
            if token in left:
                left.remove(token)
                shared += 1
        closed = ours != theirs and {ours, theirs} & {"yes", "no", "noanswer"}
        precision = Fraction(0) if closed or not shared else Fraction(shared, len(ours.split()))
        recall = Fraction(0) if closed or not shared else Fraction(shared, len(theirs.split()))
        found = {
            "em": Fraction(ours == theirs),
            "f1": 2 * precision * recall / (precision + recall) if precision else Fraction(0),
            "precision": precision,
            "recall": recall,
            "cover_em": Fraction(theirs in ours),
        }
        best = {name: max(best[name], value) for name, value in found.items()}
    return best


def close(scores: Scores, wanted: dict[str, Fraction]) -> bool:
    return all(math.isclose(getattr(scores, name), wanted[name], abs_tol=1e-12) for name in MEASURES)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['prediction']}|{case['accepted'][0]}")
def test_every_case_of_the_golden_file_is_measured_as_it_says(case: dict[str, str]) -> None:
    scores = measure(case["prediction"], case["accepted"])
    assert {name: Fraction(getattr(scores, name)).limit_denominator(100) for name in MEASURES} == {
        name: Fraction(case[name]) for name in MEASURES
    }


words = st.lists(
    st.sampled_from(["the", "a", "yes", "no", "new", "york", "New-York", ",", "é", "_", "1,000"]), max_size=5
)


@given(
    words.map(" ".join) | st.text(max_size=20),
    st.lists(words.map(" ".join) | st.text(max_size=20), min_size=1, max_size=3),
)
def test_measures_equal_their_definition_restated(prediction: str, accepted: list[str]) -> None:
    assert close(measure(prediction, accepted), plain_scores(prediction, accepted))


@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_measures_agree_with_those_that_rewards_are_made_of(prediction: str, accepted: list[str]) -> None:
    scores = measure(prediction, accepted)
    assert scores.em == answers.exact_match(prediction, accepted)
    assert math.isclose(scores.f1, answers.f1(prediction, accepted), abs_tol=1e-12)


def test_an_answer_without_an_accepted_one_is_refused() -> None:
    with pytest.raises(ValueError, match="without an accepted one"):
        measure("x", [])


@pytest.mark.skipif(not (DATA / "reward_vectors").is_dir(), reason="needs the published reward's vectors")
def test_f1_is_what_the_published_reward_gives_for_well_formed_transcripts() -> None:
    compared = 0
    for line in (DATA / "reward_vectors" / "vectors.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = boxed_answer(row["transcript"])
        if row["score"] in (None, 0) or answer is None or not well_formed(row["transcript"]):
            continue
        accepted = [row["ground_truth"]] if isinstance(row["ground_truth"], str) else row["ground_truth"]
        assert math.isclose(row["score"], measure(answer, accepted).f1 or 0.1, abs_tol=1e-9), row["id"]
        compared += 1
    assert compared > 50


@pytest.mark.skipif(not (DATA / "musique").is_dir(), reason="needs the benchmark questions")
@pytest.mark.parametrize(
    "name", ["hotpotqa/dev7405", "2wikimultihopqa/dev12576", "musique/dev2417", "bamboogle/test125"]
)
def test_every_gold_answer_of_a_benchmark_is_worth_everything_and_its_neighbour_what_the_definition_says(
    name: str,
) -> None:
    (path,) = DATA.glob(f"{name}*.jsonl")
    golds = [json.loads(line)["golden_answers"] for line in path.read_text().splitlines()][:1500]
    for gold, neighbour in pairwise(golds):
        assert measure(gold[0], gold).em == measure(gold[0], gold).cover_em == 1
        assert close(measure(neighbour[0], gold), plain_scores(neighbour[0], gold))


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263, 15/148, 0/20, 1/29.
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(successes, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    for successes, n in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            wilson(successes, n)


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_normal_interval_and_repeats() -> None:
    values = [0.0] * 700 + [1.0] * 300
    found = bootstrap(values)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert found == bootstrap(values)
    assert math.isclose(found.low, 0.3 - half, abs_tol=0.003)
    assert math.isclose(found.high, 0.3 + half, abs_tol=0.003)
    assert bootstrap([0.5]).low == bootstrap([0.5]).high == 0.5


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 1), (5, 15), (15, 5), (0, 12), (30, 41)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1))
    assert math.isclose(mcnemar(first, second), min(1.0, float(2 * Fraction(tail, 2**n))), rel_tol=1e-9)


def test_mcnemar_takes_more_pairs_than_a_float_has_powers_of_two() -> None:
    assert 0 < mcnemar(5000, 5200) < 0.06
    assert mcnemar(0, 5000) == 0.0


def test_the_paired_bootstrap_sees_a_difference_that_is_there_and_none_that_is_not() -> None:
    first = [0.0, 1.0] * 100
    interval, p = paired_bootstrap(first, [min(1.0, value + 0.5 * (i % 4 == 0)) for i, value in enumerate(first)])
    assert 0 < interval.low < 0.125 < interval.high
    assert p < 0.01
    interval, p = paired_bootstrap(first, list(reversed(first)))
    assert interval.low < 0 < interval.high
    assert p > 0.5
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_bootstrap([1.0], [])
