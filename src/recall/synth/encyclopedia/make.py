"""Makes an encyclopedia on disk: a corpus, its BM25 index, and for each split the questions in two formats.

| file | what | read by |
|---|---|---|
| `corpus.jsonl` | the passages, in FlashRAG's format | `recall retriever build` |
| `index/` | the BM25 index that the questions were certified with | `--retriever`, `--sandbox.search` |
| `questions/SPLIT.jsonl` | questions in FlashRAG's format, with gold passages and decomposition | `recall eval qa` |
| `tasks/SPLIT.jsonl` | the same questions as task rows with the search tool | `recall train`, `recall eval` |
| `encyclopedia.json` | recipe, seed, rows, checksums, what was rejected and why | |

Corpus, questions and tasks are a function of recipe, seed and rows.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recall import __version__
from recall.datasets.convert import search_tasks
from recall.datasets.qa import Question, question_from_row
from recall.datasets.rows import write_tasks
from recall.errors import ConfigError
from recall.retriever.base import Retriever
from recall.store import write_atomic
from recall.synth.encyclopedia.articles import Shelf, draw_shelf
from recall.synth.encyclopedia.certify import Guesses, Library, certify, unretrievable
from recall.synth.encyclopedia.questions import DEEPER, NEW_CHAINS, Asker, Chain, sub_questions
from recall.synth.encyclopedia.recipe import EncyclopediaRecipe
from recall.synth.encyclopedia.subjects import NANO_SEARCH
from recall.tools.search import SearchForm

FILE = "encyclopedia.json"
"""The file that is written last, so a directory that has it is whole."""
SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, NEW_CHAINS: 0.05, DEEPER: 0.05}
"""What part of the questions each split has."""
DATA_SOURCE = "recall_encyclopedia"
NANO_FORM = SearchForm(f"query_{NANO_SEARCH}", f"{NANO_SEARCH} of a guild", "name", bare=True)
"""The search tool in words that nano has tokens for."""
_FEWEST_ARTICLES = 400
_MORE_ARTICLES: Mapping[str, int] = {NEW_CHAINS: 5, DEEPER: 2}
"""Of the chains that articles give, a fifth is held out, and few are long."""
_DRAWN_AT_ONCE = 256
_MOST_DRAWS = 400
"""Draws for each question wanted; a shelf that is too small is told of instead of searched for ever."""

Progress = Callable[[str, int, int], None]
"""Told of a split, how many of its questions there are, and how many were drawn."""


def _silent(split: str, rows: int, drawn: int) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Report:
    """What an encyclopedia came to."""

    passages: int
    """In its corpus."""
    splits: dict[str, int]
    """Questions of each split."""
    drawn: int = 0
    """Questions that were tried."""
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    """Those thrown away, by certificate and reason."""


def make_encyclopedia(
    out: Path, recipe: EncyclopediaRecipe, *, rows: int, seed: int, on_progress: Progress = _silent
) -> Report:
    """Make an encyclopedia with `rows` questions, or find that it is there already.

    Raises:
        ConfigError: the directory holds something else, or the recipe's articles are too few for so many questions.
    """
    wanted = {"version": __version__, "recipe": recipe.model_dump(mode="json"), "seed": seed, "rows": rows}
    if (known := _known(out, wanted)) is not None:
        return known
    splits = rows_of(rows)
    taken: set[str] = set()
    shelves = [
        draw_shelf(random.Random(f"shelf/{seed}/{split}"), recipe, split, _articles(recipe, split, count), taken)
        for split, count in splits.items()
    ]
    passages = [passage for shelf in shelves for passage in shelf.passages]
    random.Random(f"corpus/{seed}").shuffle(passages)  # so that neighbours in the corpus say nothing
    library = Library(passages, [fact for shelf in shelves for fact in shelf.facts])
    out.mkdir(parents=True, exist_ok=True)
    files = ["corpus.jsonl"]
    _write_lines(out / files[0], [{"id": passage.id, "contents": passage.contents} for passage in passages])
    report = Report(len(passages), {})
    retriever = _indexed(out)
    try:
        for shelf, count in zip(shelves, splits.values(), strict=True):
            rng = random.Random(f"questions/{seed}/{shelf.split}")
            asker = Asker(rng, recipe, shelf)
            chains = _certified(asker, shelf, count, library, retriever, recipe, report, on_progress)
            files += _write_split(out, recipe, shelf.split, chains, library)
            report.splits[shelf.split] = len(chains)
    finally:
        asyncio.run(retriever.close())
    sums = {file: hashlib.sha256((out / file).read_bytes()).hexdigest() for file in files}
    found = {"passages": report.passages, "splits": report.splits, "drawn": report.drawn, "rejected": report.rejected}
    text = json.dumps({**wanted, **found, "sha256": sums}, indent=1)
    write_atomic(out / FILE, lambda file: file.write(text.encode()))
    return report


def rows_of(rows: int) -> dict[str, int]:
    """How many of `rows` questions each split has, at least one."""
    counts = {split: max(1, int(rows * share)) for split, share in SHARES.items()}
    counts["train"] = max(1, rows - sum(count for split, count in counts.items() if split != "train"))
    return counts


def _articles(recipe: EncyclopediaRecipe, split: str, questions: int) -> int:
    """Articles of a shelf; where there are few, everything is near to everything."""
    return max(_FEWEST_ARTICLES, int(questions * recipe.articles_a_question * _MORE_ARTICLES.get(split, 1)))


def _known(out: Path, wanted: Mapping[str, Any]) -> Report | None:
    """What is in the directory already, if it is what is wanted and whole."""
    try:
        found = json.loads((out / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        ours = {"corpus.jsonl", "index", "questions", "tasks"}
        others = sorted(path.name for path in out.iterdir() if path.name not in ours) if out.is_dir() else []
        if others:
            raise ConfigError(f"{out}: holds {others[0]!r} and no {FILE}; name a new or empty directory") from None
        return None
    except (OSError, ValueError) as fault:
        raise ConfigError(f"{out / FILE}: cannot be read: {fault}") from None
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ConfigError(f"{out}: was made with another {name}; name another directory, or delete this one")
    for file, sha256 in found["sha256"].items():
        if not (out / file).is_file() or hashlib.sha256((out / file).read_bytes()).hexdigest() != sha256:
            raise ConfigError(f"{out / file}: is missing or was changed; delete {out} to make it anew")
    return Report(found["passages"], found["splits"], found["drawn"], found["rejected"])


def _indexed(out: Path) -> Retriever:
    from recall.retriever.build import BuildSettings, build
    from recall.retriever.open import open_index

    build(BuildSettings(corpus=out / "corpus.jsonl", index=out / "index", kind="bm25"))
    return open_index(out / "index")


def _certified(
    asker: Asker,
    shelf: Shelf,
    count: int,
    library: Library,
    retriever: Retriever,
    recipe: EncyclopediaRecipe,
    report: Report,
    on_progress: Progress,
) -> list[Chain]:
    """The first `count` questions of a shelf that hold, each asked once.

    Raises:
        ConfigError: they did not come.
    """
    chains: list[Chain] = []
    seen: set[tuple[str, ...]] = set()
    guesses, rejected = Guesses(count), Counter[tuple[str, str]]()
    drawn = 0
    while len(chains) < count:
        candidates: list[Chain] = []
        for _ in range(min(_DRAWN_AT_ONCE, 2 * (count - len(chains)))):
            drawn += 1
            chain = asker.draw(asker.hops_of(len(chains) + len(candidates)))
            if chain is None or (chain.hops[0].start, *chain.words) in seen:
                continue
            seen.add((chain.hops[0].start, *chain.words))
            if (wrong := certify(chain, library)) is not None:
                rejected[wrong.gate, wrong.reason] += 1
                continue
            candidates.append(chain)
        found = asyncio.run(unretrievable(candidates, retriever, recipe.top_k, bare=recipe.edition == "nano"))
        for chain, missed in zip(candidates, found, strict=True):
            if len(chains) == count:
                break
            if (wrong := missed or guesses.check(chain)) is not None:
                rejected[wrong.gate, wrong.reason] += 1
                continue
            guesses.add(chain)
            chains.append(chain)
        on_progress(shelf.split, len(chains), drawn)
        if drawn > _MOST_DRAWS * count + 10_000:
            raise ConfigError(
                f"split {shelf.split!r}: only {len(chains)} of {count} questions hold; give it more articles_a_question"
            )
    report.drawn += drawn
    for (gate, reason), times in sorted(rejected.items()):
        of_gate = report.rejected.setdefault(gate, {})
        of_gate[reason] = of_gate.get(reason, 0) + times
    return chains


def _write_split(
    out: Path, recipe: EncyclopediaRecipe, split: str, chains: Sequence[Chain], library: Library
) -> list[str]:
    """Write the questions of a split in both formats; the files' names."""
    rows = list(_rows(recipe, split, chains, library))
    names = [f"questions/{split}.jsonl", f"tasks/{split}.jsonl"]
    for name in names:
        (out / name).parent.mkdir(exist_ok=True)
    _write_lines(out / names[0], rows)
    questions: list[Question] = [question_from_row(row, f"{split} {number}") for number, row in enumerate(rows)]
    write_tasks(out / names[1], search_tasks(questions, data_source=DATA_SOURCE, split=split, top_k=recipe.top_k))
    return names


def _rows(
    recipe: EncyclopediaRecipe, split: str, chains: Sequence[Chain], library: Library
) -> Iterator[dict[str, Any]]:
    """Questions in FlashRAG's format, with the decomposition and the paragraphs that the oracle plays by."""
    for number, chain in enumerate(chains):
        gold = [hop.fact.passage for hop in chain.hops]
        places = list(dict.fromkeys(gold))
        paragraphs = [library.passages[id] for id in places]
        steps = [
            {"question": asked, "answer": hop.end, "paragraph_support_idx": places.index(hop.fact.passage)}
            for asked, hop in zip(sub_questions(chain.hops), chain.hops, strict=True)
        ]
        metadata: dict[str, Any] = {"type": f"{len(chain.hops)}hop", "question_decomposition": steps, "gold": gold}
        if recipe.edition == "nano":
            metadata["search_tool"] = NANO_FORM.as_json()
        yield {
            "id": f"{split}-{number}",
            "question": chain.text,
            "golden_answers": [chain.answer],
            "metadata": metadata,
            "paragraphs": [
                {"title": each.title, "text": each.text, "is_supporting": True, "id": each.id} for each in paragraphs
            ],
        }


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, lambda file: file.write(text.encode()))
