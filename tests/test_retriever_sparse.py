import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Passage
from recall.retriever.build import BuildSettings, build
from recall.retriever.fulltext import AnalyserSettings
from recall.retriever.manifest import Kind
from recall.retriever.open import OpenSettings, open_retriever
from recall.retriever.tokens import Tokenizer, TokenizerSettings
from retriever_corpora import TEXTS, many, write_corpus

bm25s: Any = pytest.importorskip("bm25s", reason="the sparse kinds come with recall[retriever]")
Stemmer: Any = pytest.importorskip("Stemmer", reason="the sparse kinds come with recall[retriever]")
pytest.importorskip("tantivy", reason="the sparse kinds come with recall[retriever]")
SPARSE: tuple[Kind, ...] = ("bm25", "tantivy")


def built(tmp_path: Path, kind: Kind, texts: Any = TEXTS, **more: Any) -> Path:
    tmp_path.mkdir(exist_ok=True)
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts)
    build(BuildSettings(corpus=corpus, index=tmp_path / "index", kind=kind, **more))
    return tmp_path / "index"


async def found(index: Path, queries: Sequence[str], k: int, **more: Any) -> list[list[Passage]]:
    retriever = open_retriever(index, OpenSettings(**more))
    try:
        return await retriever.search(queries, k)
    finally:
        await retriever.close()


def test_words_are_those_of_bm25s() -> None:
    settings = TokenizerSettings().resolved()
    tokenizer = Tokenizer(settings)
    for title, text in [*TEXTS, *many(50)]:
        theirs = bm25s.tokenize(
            [f"{title}\n{text}"],
            stopwords="en",
            stemmer=Stemmer.Stemmer("english"),
            return_ids=False,
            show_progress=False,
        )
        assert tokenizer.words(f"{title}\n{text}") == theirs[0]


def test_settings_of_words_hold_for_queries_as_for_passages() -> None:
    plain = Tokenizer(TokenizerSettings(stopwords="none", stemmer="none", lower=False).resolved())
    assert plain.words("The Engines of the engines") == ["The", "Engines", "of", "the", "engines"]
    own = Tokenizer(TokenizerSettings(stopwords=("engines",), pattern=r"\w+", stemmer="french").resolved())
    assert own.words("Les engines chevaux a") == ["le", "cheval", "a"]


def test_words_cannot_be_cut_by_what_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="'klingon' is no stemmer; accepted: none, arabic"):
        TokenizerSettings(stemmer="klingon").resolved()
    with pytest.raises(ValueError, match="groups are not accepted"):
        TokenizerSettings(pattern=r"(a)b")
    with pytest.raises(ValueError, match="not a regular expression"):
        TokenizerSettings(pattern="(")


def test_scores_are_those_of_bm25s_over_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recall.retriever import postings

    monkeypatch.setattr(postings, "SHARD_ROWS", 17)
    texts = [*TEXTS, *many(100)]
    index = built(tmp_path, "bm25", texts)
    ours = bm25s.BM25.load(index / "bm25", mmap=True, show_progress=False)
    contents = [f'"{title}"\n{text}' for title, text in texts]
    stemmer = Stemmer.Stemmer("english")
    words = bm25s.tokenize(contents, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
    theirs = bm25s.BM25()
    theirs.index(words, show_progress=False)
    assert isinstance(ours.scores["data"], np.memmap)
    for query in words:
        np.testing.assert_allclose(ours.get_scores(query), theirs.get_scores(query), rtol=1e-5)


@pytest.mark.parametrize("kind", SPARSE)
async def test_the_passage_that_is_asked_for_comes_first(tmp_path: Path, kind: Kind) -> None:
    index = built(tmp_path, kind)
    queries = ["who designed the Analytical Engine?", "discovering radium", "KRAKÓW university", "東京"]
    best = [passages[0].id for passages in await found(index, queries, 2)]
    assert best == ["d1", "d2", "d4", "d5"]
    (passages,) = await found(index, ["Engine"], 6)
    assert {passage.id for passage in passages} == {"d0", "d1"}
    assert passages[0].score >= passages[1].score > 0
    assert passages[0].contents.startswith('"')


@pytest.mark.parametrize("kind", SPARSE)
async def test_a_query_is_stemmed_as_its_corpus_was(tmp_path: Path, kind: Kind) -> None:
    more: dict[str, Any] = {
        "tokenizer": TokenizerSettings(stemmer="none"),
        "analyser": AnalyserSettings(language="none"),
    }
    (stemmed,) = await found(built(tmp_path / "s", kind), ["programs"], 3)
    (plain,) = await found(built(tmp_path / "p", kind, **more), ["programs"], 3)
    assert [passage.id for passage in stemmed] == ["d0"]
    assert plain == []


@pytest.mark.parametrize("kind", SPARSE)
async def test_any_text_is_a_query(tmp_path: Path, kind: Kind) -> None:
    index = built(tmp_path, kind)
    odd = [
        "",
        "  \n\t",
        "?!",
        "the of and",
        "\ud800 radium",
        "radium " * 700,
        "x" * 5000,
        "a AND (b OR",
        'field:"x',
        "\0",
    ]
    answers = await found(index, odd, 3)
    assert [len(passages) for passages in answers[:2]] == [0, 0]
    assert answers[4][0].id in ("d2", "d3")
    assert answers[5][0].id in ("d2", "d3")
    assert [answers[i] for i in (2, 6, 9)] == [[], [], []]


@pytest.mark.parametrize("kind", SPARSE)
async def test_k_beyond_the_corpus_gives_what_there_is(tmp_path: Path, kind: Kind) -> None:
    index = built(tmp_path, kind)
    (all_of_them,) = await found(index, ["engine radium capital oldest"], 1_000_000)
    assert len(all_of_them) == 6
    with pytest.raises(ValueError, match="k is 0"):
        await found(index, ["engine"], 0)


@pytest.mark.parametrize("kind", SPARSE)
async def test_ten_thousand_queries_at_once_are_answered_in_order(tmp_path: Path, kind: Kind) -> None:
    index = built(tmp_path, kind, many(200))
    answers = await found(index, [f"number{i % 200}" for i in range(10_000)], 1)
    assert [passages[0].id for passages in answers] == [f"d{i % 200}" for i in range(10_000)]


@pytest.mark.parametrize("kind", SPARSE)
async def test_many_searches_at_once_agree_with_one_at_a_time(tmp_path: Path, kind: Kind) -> None:
    retriever = open_retriever(built(tmp_path, kind, many(200)))
    queries = [f"copper tower district {i}" for i in range(64)]
    alone = [await retriever.search([query], 5) for query in queries]
    assert list(await asyncio.gather(*(retriever.search([query], 5) for query in queries))) == alone
    await retriever.close()
    await retriever.close()
    with pytest.raises(RetrieverError, match="after it was closed"):
        await retriever.search(["copper"], 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from recall.retriever import fulltext, postings
from recall.retriever.build import BuildSettings, build
postings.SHARD_ROWS = fulltext._COMMIT_ROWS = 20
def report(doing, done, total):
    if done >= 60 and doing != "reading the corpus":
        os.kill(os.getpid(), signal.SIGKILL)
build(BuildSettings(corpus=Path(sys.argv[1]), index=Path(sys.argv[2]), kind=sys.argv[3]), report)
"""


@pytest.mark.parametrize("kind", SPARSE)
async def test_a_killed_build_goes_on_and_finds_the_same(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recall.retriever import fulltext, postings

    monkeypatch.setattr(postings, "SHARD_ROWS", 20)
    monkeypatch.setattr(fulltext, "_COMMIT_ROWS", 20)
    corpus = write_corpus(tmp_path / "corpus.jsonl", many(100))
    arguments = [sys.executable, "-c", KILLED, str(corpus), str(tmp_path / "index"), kind]
    process = await asyncio.create_subprocess_exec(*arguments)
    assert await process.wait() == -signal.SIGKILL
    with pytest.raises(ConfigError, match="unfinished; run the same build again"):
        open_retriever(tmp_path / "index")
    told: list[int] = []
    settings = BuildSettings(corpus=corpus, index=tmp_path / "index", kind=kind)
    build(settings, lambda doing, done, total: told.append(done) if doing.startswith("indexing") else None)
    assert kind == "bm25" or min(told) >= 40
    build(settings.model_copy(update={"index": tmp_path / "whole"}))
    queries = [f"number{i} in the harbour" for i in range(0, 100, 9)]
    again, whole = await found(tmp_path / "index", queries, 7), await found(tmp_path / "whole", queries, 7)
    assert [passages[0] for passages in again] == [passages[0] for passages in whole]
    # the rest are equals, and which of them come in is left to tantivy
    assert [[p.score for p in passages] for passages in again] == [[p.score for p in passages] for passages in whole]
    left = {path.name for path in (tmp_path / "index").iterdir()}
    assert left == {".lock", "corpus", "manifest.json", kind}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_damaged_file_is_named(tmp_path: Path, kind: Kind) -> None:
    index = built(tmp_path, kind)
    for path in sorted((index / kind).iterdir()):
        whole = path.read_bytes()
        for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
            path.write_bytes(damage)
            with pytest.raises(ConfigError, match=path.name):
                open_retriever(index)
        path.unlink()
        with pytest.raises(ConfigError, match=f"{path.name}: is missing"):
            open_retriever(index)
        path.write_bytes(whole)
    open_retriever(index)


async def test_one_directory_holds_several_kinds_and_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    index = built(tmp_path, "bm25")
    before = (index / "bm25" / "vocab.index.json").stat().st_mtime_ns
    built(tmp_path, "tantivy")
    built(tmp_path, "bm25")
    assert (index / "bm25" / "vocab.index.json").stat().st_mtime_ns == before
    assert open_retriever(index).card.kind == "bm25"
    assert open_retriever(index, OpenSettings(kind="tantivy")).card.kind == "tantivy"
    with pytest.raises(ConfigError, match="has no hnsw index; it has bm25, tantivy"):
        open_retriever(index, OpenSettings(kind="hnsw"))


def test_the_card_tells_what_finds_other_passages(tmp_path: Path) -> None:
    one, same = built(tmp_path / "a", "bm25"), built(tmp_path / "b", "bm25")
    other = built(tmp_path / "c", "bm25", tokenizer=TokenizerSettings(stemmer="none"))
    cards = [open_retriever(index).card for index in (one, same, other)]
    assert cards[0] == cards[1]
    assert cards[0].id != cards[2].id
    assert (cards[0].passages, cards[0].encoder) == (6, "")


def test_a_directory_over_another_corpus_is_refused(tmp_path: Path) -> None:
    built(tmp_path, "bm25")
    with pytest.raises(ConfigError, match="holds an index over another corpus"):
        built(tmp_path, "bm25", many(10))


def test_a_changed_setting_builds_again(tmp_path: Path) -> None:
    index = built(tmp_path, "bm25")
    before = open_retriever(index).card.id
    built(tmp_path, "bm25", tokenizer=TokenizerSettings(stemmer="none"))
    assert open_retriever(index).card.id != before


def test_two_builds_in_one_directory_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    refused: list[object] = []
    settings = BuildSettings(corpus=corpus, index=tmp_path / "index")

    def meanwhile(doing: str, done: int, total: int) -> None:
        if not refused:
            with pytest.raises(ConfigError, match="another build is running there") as error:
                build(settings)
            refused.append(error)

    build(settings, meanwhile)
    assert refused


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, problem in (("none", "no index"), ("empty", "no index"), ("file", "not a directory")):
        with pytest.raises(ConfigError, match=problem):
            open_retriever(tmp_path / name)
    index = built(tmp_path, "bm25")
    (index / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match="not a manifest of this version: format"):
        open_retriever(index)


async def test_tantivy_leaves_stop_words_out_of_queries_that_have_others(tmp_path: Path) -> None:
    texts = [("The The", "The The are a band."), ("Which", "Which is of the and to."), ("Ada", "Ada and the engine.")]
    index = built(tmp_path, "tantivy", texts)
    answers = await found(index, ["the engine", "and to the", "of which"], 3)
    assert [passage.id for passage in answers[0]] == ["d2"]
    assert answers[1][0].id == "d1"
    assert [passage.id for passage in answers[2]] == ["d1"]
    own = built(tmp_path / "own", "tantivy", texts, analyser=AnalyserSettings(stopwords=("engine",)))
    assert len((await found(own, ["the engine"], 3))[0]) == 3
