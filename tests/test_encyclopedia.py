import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recall import cli
from recall.datasets.qa import read_questions
from recall.datasets.rows import read_tasks
from recall.errors import ConfigError
from recall.retriever.base import Passage
from recall.retriever.fixed import FixedRetriever
from recall.retriever.open import open_index
from recall.synth.encyclopedia.articles import Fact
from recall.synth.encyclopedia.certify import Guesses, Library, certify, unretrievable
from recall.synth.encyclopedia.make import FILE, make_encyclopedia, rows_of
from recall.synth.encyclopedia.questions import Chain, Hop
from recall.synth.encyclopedia.recipe import PRESETS, EncyclopediaRecipe, recipe_of
from recall.synth.encyclopedia.subjects import EDITIONS, Word
from recall.synth.world import held_out
from recall.tools.search import PUBLISHED, NativeSearch, SearchForm

pytest.importorskip("bm25s", reason="the index comes with recall[retriever]")

ROWS = 60
SPLITS = ("train", "validation", "new_chains", "deeper")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An encyclopedia of each edition."""
    folder = tmp_path_factory.mktemp("encyclopedia")
    for name, recipe in PRESETS.items():
        make_encyclopedia(folder / name, recipe, rows=ROWS, seed=0)
    return {name: folder / name for name in PRESETS}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- what is made


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_recipe_seed_and_rows_make_the_same_files(name: str, made: dict[str, Path], tmp_path: Path) -> None:
    make_encyclopedia(tmp_path / "again", PRESETS[name], rows=ROWS, seed=0)
    make_encyclopedia(tmp_path / "other", PRESETS[name], rows=ROWS, seed=1)
    files = ["corpus.jsonl", *(f"{sort}/{split}.jsonl" for sort in ("questions", "tasks") for split in SPLITS)]
    for file in files:
        first = (made[name] / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() == first
        assert (tmp_path / "other" / file).read_bytes() != first


@pytest.mark.parametrize("name", PRESETS)
def test_every_split_has_its_share_of_questions_and_articles_of_its_own(name: str, made: dict[str, Path]) -> None:
    gold: dict[str, str] = {}
    for split, count in rows_of(ROWS).items():
        questions = read_questions(made[name] / "questions" / f"{split}.jsonl")
        assert len(questions) == count
        for question in questions:
            for passage in question.metadata["gold"]:
                assert gold.setdefault(passage, split) == split


def test_chains_of_words_that_are_held_out_are_in_no_other_split_and_deeper_is_longer(made: dict[str, Path]) -> None:
    def chains(split: str) -> list[tuple[str, ...]]:
        rows = lines_of(made["nano"] / "questions" / f"{split}.jsonl")
        return [tuple(s["question"].split(" >> ")[1] for s in r["metadata"]["question_decomposition"]) for r in rows]

    for split in ("train", "validation"):
        assert not any(len(chain) > 1 and held_out("encyclopedia", *chain) for chain in chains(split))
    assert all(held_out("encyclopedia", *chain) for chain in chains("new_chains"))
    assert {len(chain) for chain in chains("train")} == {1, 2, 3}
    assert {len(chain) for chain in chains("deeper")} == {4}


@pytest.mark.parametrize("name", PRESETS)
def test_the_gold_passages_lead_from_the_question_to_its_answer(name: str, made: dict[str, Path]) -> None:
    corpus = {row["id"]: row["contents"] for row in lines_of(made[name] / "corpus.jsonl")}
    for split in SPLITS:
        for row in lines_of(made[name] / "questions" / f"{split}.jsonl"):
            known = ""
            for step, passage in zip(row["metadata"]["question_decomposition"], row["metadata"]["gold"], strict=True):
                start = step["question"].split(" >> ")[0]
                assert start in row["question"] or start.startswith("#")
                assert (known or start) in corpus[passage]
                assert step["answer"] in corpus[passage]
                known = step["answer"]
            assert known == row["golden_answers"][0]
            assert known not in row["question"]


def test_searching_as_the_decomposition_says_finds_every_answer(made: dict[str, Path]) -> None:
    search = NativeSearch(open_index(made["nano"] / "index"), owned=True)

    async def play() -> list[bool]:
        found = []
        for task, row in zip(
            read_tasks(made["nano"] / "tasks" / "validation.jsonl"),
            lines_of(made["nano"] / "questions" / "validation.jsonl"),
            strict=True,
        ):
            session = await search.open(task.env)
            name = task.tools[0].name
            known = ""
            for step in row["metadata"]["question_decomposition"]:
                start = step["question"].split(" >> ")[0]
                result = await session.call(name, {"name": known if start[0] == "#" else start})
                assert isinstance(result.result, str)
                known = step["answer"]
                found.append(known in result.result)
            await session.close()
        await search.close()
        return found

    found = asyncio.run(play())
    assert len(found) > rows_of(ROWS)["validation"]
    assert all(found)


# --- certificates

FOUNDER, MAYOR = Word("founder", "town", "person"), Word("mayor", "town", "person")
TEACHER = Word("teacher", "person", "person")
FACTS = (
    Fact("Ona", FOUNDER, "Bru", "p0"),
    Fact("Bru", TEACHER, "Cle", "p1"),
    Fact("Una", MAYOR, "Dor", "p2"),
    Fact("Cle", TEACHER, "Dor", "p4"),
)
TEXTS = {
    "p0": "Ona was founded by Bru.",
    "p1": "Bru was taught by Cle.",
    "p2": "Una has Dor for a mayor.",
    "p4": "Cle was taught by Dor.",
}
CHAIN = Chain((Hop(FACTS[0]), Hop(FACTS[1])), "Who taught the founder of Ona?")


def library(*more: Fact, **texts: str) -> Library:
    passages = [Passage(id, f'"{text.split()[0]}"\n{text}') for id, text in {**TEXTS, **texts}.items()]
    return Library(passages, (*FACTS, *more))


def test_a_question_that_holds_is_certified() -> None:
    assert certify(CHAIN, library()) is None


@pytest.mark.parametrize(
    ("gate", "chain", "shelf"),
    [
        ("gold", CHAIN, library(p1="Bru was taught by somebody.")),
        ("stated", replace(CHAIN, text="Who taught the founder of the town?"), library()),
        ("stated", replace(CHAIN, text="Was it Bru who founded Ona?"), library()),
        ("unique", CHAIN, library(Fact("Bru", TEACHER, "Dor", "p3"), p3="Bru was taught by Dor.")),
        ("minimal", CHAIN, library(p3="Cle once lived in Ona.")),
        ("minimal", CHAIN, library(p0="Ona was founded by Bru, whom Cle had taught.")),
    ],
)
def test_a_planted_flaw_is_rejected_by_its_gate(gate: str, chain: Chain, shelf: Library) -> None:
    rejected = certify(chain, shelf)
    assert rejected is not None
    assert rejected.gate == gate


def test_an_answer_that_is_right_too_often_is_rejected() -> None:
    guesses = Guesses(100)
    for _ in range(2):
        assert guesses.check(CHAIN) is None
        guesses.add(CHAIN)
    rejected = guesses.check(CHAIN)
    assert rejected is not None
    assert rejected.gate == "guessable"


def test_a_hop_whose_passage_is_not_found_is_rejected() -> None:
    def of(id: str) -> list[Passage]:
        return [Passage(id, TEXTS[id])]

    finds = FixedRetriever({"Ona founder": of("p0"), "Bru teacher": of("p1")})
    misses = FixedRetriever({"Ona founder": of("p0"), "Bru teacher": of("p2")})
    assert asyncio.run(unretrievable([CHAIN], finds, 1)) == [None]
    (rejected,) = asyncio.run(unretrievable([CHAIN], misses, 1))
    assert rejected is not None
    assert rejected.gate == "retrievable"


# --- the search tool in other words


def test_a_question_says_what_its_search_tool_is_called() -> None:
    form = SearchForm("query_archive", "archive of a guild", "name", bare=True)
    assert SearchForm.of({"search_tool": form.as_json()}) == form
    assert SearchForm.of({}) == PUBLISHED


@pytest.mark.parametrize("given", [{"nme": "x"}, {"name": "not a name"}, {"name": 3}, "search", {"query": "1"}])
def test_a_search_tool_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^search_tool: "):
        SearchForm.of({"search_tool": given})


# --- the command


def test_the_command_makes_finds_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    command = ["synth", "encyclopedia", "--rows", "20", "--recipe", "nano", "--out", str(out)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "20 questions, seed 0" in said
    before = (out / FILE).stat().st_mtime_ns
    assert cli.main(command) == 0
    assert (out / FILE).stat().st_mtime_ns == before
    assert capsys.readouterr().out == said
    assert cli.main([*command, "--seed", "1"]) == 2
    assert "was made with another seed" in capsys.readouterr().err
    with open(out / "corpus.jsonl", "a") as corpus:
        corpus.write("\n")
    assert cli.main(command) == 2
    assert "corpus.jsonl: is missing or was changed" in capsys.readouterr().err


def test_what_was_broken_off_is_made_anew_and_a_strange_directory_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "set"
    recipe = recipe_of("nano")
    make_encyclopedia(out, recipe, rows=20, seed=0)
    whole = (out / "tasks" / "train.jsonl").read_bytes()
    (out / FILE).unlink()
    (out / "tasks" / "train.jsonl").write_bytes(whole[:100])
    make_encyclopedia(out, recipe, rows=20, seed=0)
    assert (out / "tasks" / "train.jsonl").read_bytes() == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds 'thesis.txt'"):
        make_encyclopedia(tmp_path / "other", recipe, rows=20, seed=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hops": (3, 2)}, "the fewest and the most"),
        ({"edition": "nano"}, "has no words for it; 0 is accepted"),
        ({"facts": (4, 60)}, "things to tell of a subject"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EncyclopediaRecipe(**wrong)


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"accepted: a \.toml file, or one of default, nano"):
        recipe_of("large")


def test_words_are_unique_in_their_edition_and_every_sentence_names_both_ends() -> None:
    for edition in EDITIONS.values():
        nouns = [word.noun for word in edition.words]
        assert len(nouns) == len(set(nouns))
        for word in edition.words:
            assert all("{s}" in said and "{o}" in said for said in word.says)
