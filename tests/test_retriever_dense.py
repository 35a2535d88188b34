import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recall.errors import ConfigError, RetrieverError
from recall.retriever.ann import Ann, AnnKind, AnnSettings
from recall.retriever.ann import build as build_ann
from recall.retriever.base import Passage
from recall.retriever.build import BuildSettings, build
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.finder import Hits, best
from recall.retriever.flat import FaissFlat, NumpyFlat, TorchFlat, exact
from recall.retriever.fusion import Fused
from recall.retriever.manifest import Kind
from recall.retriever.open import OpenSettings, open_flashrag, open_retriever
from recall.retriever.progress import silent
from recall.retriever.vectors import VectorSettings
from retriever_corpora import TEXTS, many, minilm, tiny_encoder, write_corpus

faiss: Any = pytest.importorskip("faiss", reason="dense kinds come with recall[retriever]")
torch: Any = pytest.importorskip("torch", reason="encoders come with recall[train]")
pytest.importorskip("transformers", reason="encoders come with recall[train]")

ANN: tuple[AnnKind, ...] = ("hnsw", "ivf-sq8", "ivf-pq")
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """What is computed here is small, and threads that wait for each other take longer on a busy machine."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)


def clustered(count: int, dim: int = 32, seed: int = 0) -> Array:
    """Unit vectors around some centres, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(16, dim))
    vectors: Array = centres[random.integers(16, size=count)] + 0.6 * random.normal(size=(count, dim))
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def rows_of(hits: Sequence[Hits]) -> list[list[int]]:
    return [[row for row, _ in found] for found in hits]


def settings(tmp_path: Path, kind: Kind, texts: Any = TEXTS, **more: Any) -> BuildSettings:
    tmp_path.mkdir(exist_ok=True)
    if not (tmp_path / "corpus.jsonl").exists():
        write_corpus(tmp_path / "corpus.jsonl", texts)
    more.setdefault("encoder", EncoderSettings(model=str(tmp_path / "tiny-e5-base")))
    if not (tmp_path / "tiny-e5-base").exists():
        tiny_encoder(tmp_path / "tiny-e5-base")
    return BuildSettings(corpus=tmp_path / "corpus.jsonl", index=tmp_path / "index", kind=kind, **more)


async def found(index: Path, queries: Sequence[str], k: int, **more: Any) -> list[list[Passage]]:
    retriever = open_retriever(index, OpenSettings(**more))
    try:
        return await retriever.search(queries, k)
    finally:
        await retriever.close()


def test_the_best_are_in_order_without_what_faiss_did_not_find() -> None:
    rows, scores = np.array([4, -1, 2, 9, 1]), np.array([0.5, 9.0, 0.5, 0.7, 0.1], np.float32)
    assert rows_of([best(rows, scores, 3)]) == [[9, 2, 4]]
    assert rows_of([best(rows, scores, 10)]) == [[9, 2, 4, 1]]
    assert best(np.array([-1, -1]), np.zeros(2), 2) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_exact_search_finds_the_same(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    from recall.retriever import flat

    monkeypatch.setattr(flat, "_BLOCK", 100)
    monkeypatch.setattr(flat, "_QUERIES", 7)
    vectors: Array = clustered(330).astype(dtype)
    queries = clustered(20, seed=1)
    wanted = np.argsort(-(queries @ vectors.astype(np.float32).T), axis=1)
    for index in (FaissFlat(vectors), NumpyFlat(vectors), TorchFlat(vectors, torch.device("cpu"))):
        assert rows_of(index.nearest(queries, 5)) == wanted[:, :5].tolist()
        assert rows_of(index.nearest(queries, 330)) == wanted.tolist()


def test_numpy_serves_small_corpora_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from recall.retriever import flat

    monkeypatch.setattr(flat, "NUMPY_ROWS", 10)
    with pytest.raises(ConfigError, match=r"a flat index of 11 passages needs faiss: pip install"):
        NumpyFlat(clustered(11))
    assert isinstance(exact(clustered(11), "cpu"), FaissFlat)


@pytest.mark.parametrize("kind", ANN)
def test_approximate_search_finds_nearly_what_exact_search_does(tmp_path: Path, kind: AnnKind) -> None:
    vectors, queries = clustered(3000), clustered(50, seed=1)
    shape = AnnSettings(rescore=8 if kind == "ivf-pq" else -1, code_bytes=8).resolved(kind, 3000, 32)
    build_ann(kind, vectors, tmp_path / "index.faiss", shape, silent)
    exactly = rows_of(FaissFlat(vectors).nearest(queries, 10))
    about = rows_of(Ann(tmp_path / "index.faiss", shape, vectors).nearest(queries, 10))
    shared = sum(len(set(a) & set(b)) for a, b in zip(exactly, about, strict=True)) / 500
    assert shared > 0.9


def test_empty_lists_give_fewer_rows_and_no_row_minus_one(tmp_path: Path) -> None:
    vectors = clustered(400)
    shape = AnnSettings(lists=64, probes=1).resolved("ivf-sq8", 400, 32)
    build_ann("ivf-sq8", vectors, tmp_path / "index.faiss", shape, silent)
    hits = Ann(tmp_path / "index.faiss", shape).nearest(clustered(30, seed=1), 50)
    assert all(0 <= row < 400 for found in hits for row, _ in found)
    assert min(len(found) for found in hits) < 50
    wide = Ann(tmp_path / "index.faiss", shape.model_copy(update={"probes": 64})).nearest(vectors[:3], 400)
    assert [len(found) for found in wide] == [400] * 3


def test_an_index_suits_the_size_of_its_corpus() -> None:
    million = AnnSettings().resolved("ivf-pq", 1_000_000, 768)
    assert (million.lists, million.probes, million.code_bytes, million.rescore) == (2048, 64, 96, 8)
    assert AnnSettings().resolved("ivf-sq8", 21_000_000, 768).lists == 8192
    small = AnnSettings().resolved("ivf-sq8", 40, 32)
    assert (small.lists, small.probes, small.rescore) == (1, 1, 0)
    with pytest.raises(ConfigError, match="needs at least 256 passages, and there are 40; take flat"):
        AnnSettings().resolved("ivf-pq", 40, 32)
    with pytest.raises(ConfigError, match="5 does not divide the 32 numbers"):
        AnnSettings(code_bytes=5).resolved("ivf-pq", 400, 32)
    with pytest.raises(ConfigError, match=r"--ann\.lists: 50 is more than the 40 passages"):
        AnnSettings(lists=50).resolved("ivf-sq8", 40, 32)


def test_ranks_are_fused_by_their_reciprocals() -> None:
    class Known:
        def __init__(self, hits: Hits) -> None:
            self.hits, self.closed = hits, False

        def find(self, texts: Sequence[str], k: int) -> list[Hits]:
            return [self.hits[:k] for _ in texts]

        def close(self) -> None:
            self.closed = True

    parts = [Known([(5, 9.0), (3, 1.0)]), Known([(3, 0.2), (7, 0.1)])]
    fused = Fused(parts, rows=10)
    ((first, second, third),) = fused.find(["q"], 3)
    assert [first[0], second[0], third[0]] == [3, 5, 7]
    assert [first[1], second[1], third[1]] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert [len(hits) for hits in fused.find(["a", "b"], 1)] == [1, 1]
    fused.close()
    assert all(part.closed for part in parts)


@pytest.mark.parametrize("kind", ["flat", *ANN])
async def test_a_passage_finds_itself_with_its_own_text(tmp_path: Path, kind: Kind) -> None:
    neutral = EncoderSettings(model=str(tmp_path / "tiny-e5-base"), query_prefix="passage: ")
    build(settings(tmp_path, kind, many(300), encoder=neutral))
    corpus = [f'"{title}"\n{text}' for title, text in many(300)]
    answers = await found(tmp_path / "index", corpus[::20], 3)
    assert sum(passages[0].contents == text for passages, text in zip(answers, corpus[::20], strict=True)) >= 14
    assert all(passages[0].score > 0.99 for passages in answers)


async def test_any_text_is_a_query_and_k_may_be_anything(tmp_path: Path) -> None:
    build(settings(tmp_path, "flat"))
    odd = ["", " \n", "?!", "\ud800 radium", "radium " * 700, "x" * 5000, "東京", "\0"]
    answers = await found(tmp_path / "index", odd, 10**9)
    assert [len(passages) for passages in answers] == [0, 0, 6, 6, 6, 6, 6, 6]
    answers = await found(tmp_path / "index", [f"radium {i % 50}" for i in range(10_000)], 2)
    assert [len(passages) for passages in answers] == [2] * 10_000


async def test_another_kind_takes_over_the_vectors(tmp_path: Path) -> None:
    build(settings(tmp_path, "flat", many(300)))
    before = (tmp_path / "index" / "vectors" / "vectors.bin").stat().st_mtime_ns
    told: list[str] = []
    given = settings(tmp_path, "hybrid", of=("bm25", "ivf-sq8"), encoder=EncoderSettings())
    build(given, lambda doing, done, total: told.append(doing))
    assert (tmp_path / "index" / "vectors" / "vectors.bin").stat().st_mtime_ns == before
    assert "embedding" not in told
    assert "indexing (ivf-sq8)" in told
    parts: list[Kind] = ["bm25", "ivf-sq8"]
    sums: dict[str, float] = {}
    for part in parts:
        (passages,) = await found(tmp_path / "index", ["number7 harbour"], 300, kind=part)
        for rank, passage in enumerate(passages, 1):
            sums[passage.id] = sums.get(passage.id, 0) + 1 / (60 + rank)
    (passages,) = await found(tmp_path / "index", ["number7 harbour"], 300)
    assert {passage.id: passage.score for passage in passages} == pytest.approx(sums)
    kinds: list[Kind] = ["flat", "bm25", "ivf-sq8", "hybrid"]
    cards = [open_retriever(tmp_path / "index", OpenSettings(kind=kind)).card for kind in kinds]
    assert len({card.id for card in cards}) == 4
    assert [card.encoder.rpartition("/")[2] for card in cards] == ["tiny-e5-base", "", "tiny-e5-base", "tiny-e5-base"]


async def test_what_is_asked_for_when_opening_is_part_of_the_card(tmp_path: Path) -> None:
    build(settings(tmp_path, "ivf-sq8", many(300)))
    plain, narrow = (open_retriever(tmp_path / "index", OpenSettings(probes=probes)) for probes in (None, 1))
    assert plain.card.id != narrow.card.id
    ((few,), (all_of_them,)) = [await r.search(["wool"], 300) for r in (narrow, plain)]
    assert len(few) < len(all_of_them) == 300


KILLED = """
import os, signal, sys
from recall.retriever.build import BuildSettings, build
def report(doing, done, total):
    if doing == "embedding" and done >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
build(BuildSettings.model_validate_json(sys.argv[1]), report)
"""


async def test_killed_embedding_goes_on_after_its_last_shard(tmp_path: Path) -> None:
    import asyncio
    import sys

    given = settings(tmp_path, "flat", many(100), vectors=VectorSettings(shard_rows=20))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, given.model_dump_json())
    assert await process.wait() == -signal.SIGKILL
    vectors = tmp_path / "index" / "vectors" / "vectors.bin"
    assert vectors.stat().st_size == 40 * 32 * 4
    vectors.write_bytes(vectors.read_bytes() + b"torn")
    told: list[int] = []
    build(given, lambda doing, done, total: told.append(done) if doing == "embedding" else None)
    assert told == [40, 60, 80, 100]
    build(given.model_copy(update={"index": tmp_path / "whole"}))
    assert vectors.read_bytes() == (tmp_path / "whole" / "vectors" / "vectors.bin").read_bytes()


def test_unfinished_vectors_are_not_gone_on_with_by_another_encoder(tmp_path: Path) -> None:
    given = settings(tmp_path, "flat", many(100), vectors=VectorSettings(shard_rows=20))

    def stop(doing: str, done: int, total: int) -> None:
        if doing == "embedding" and done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(given, stop)
    other = tiny_encoder(tmp_path / "other" / "tiny-e5-base", seed=1)
    with pytest.raises(ConfigError, match="there are other vectors: weights"):
        build(given.model_copy(update={"encoder": EncoderSettings(model=str(other))}))
    half = VectorSettings(dtype="float16", shard_rows=20)
    with pytest.raises(ConfigError, match="dtype 'float32' is not 'float16'"):
        build(given.model_copy(update={"vectors": half}))
    build(given)


def test_another_encoder_than_that_of_the_index_is_refused_by_name(tmp_path: Path) -> None:
    build(settings(tmp_path, "flat"))
    asked = {
        "pooling": ("cls", r"--encoder\.pooling: 'cls' is not 'mean'"),
        "query_prefix": ("", r"--encoder\.query_prefix: '' is not 'query: '"),
        "normalize": (False, r"--encoder\.normalize: False is not True"),
        "query_tokens": (8, r"--encoder\.query_tokens: 8 is not 64"),
        "model": (str(tiny_encoder(tmp_path / "o" / "tiny-e5-base", seed=1)), "not the encoder of .*: weights"),
    }
    for name, (value, problem) in asked.items():
        with pytest.raises(ConfigError, match=problem):
            open_retriever(tmp_path / "index", OpenSettings(encoder=EncoderSettings.model_validate({name: value})))
    (tmp_path / "tiny-e5-base").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_retriever(tmp_path / "index")
    open_retriever(tmp_path / "index", OpenSettings(encoder=EncoderSettings(model=str(tmp_path / "moved"))))


@pytest.mark.parametrize("kind", ["flat", *ANN])
def test_damaged_vectors_and_indexes_are_named(tmp_path: Path, kind: Kind) -> None:
    build(settings(tmp_path, kind, many(300)))
    path = tmp_path / "index" / ("vectors/vectors.bin" if kind == "flat" else f"{kind}/index.faiss")
    whole = path.read_bytes()
    for damage in (whole[:-1], b"x" + whole[1:], b""):
        path.write_bytes(damage)
        with pytest.raises(ConfigError, match=path.name):
            open_retriever(tmp_path / "index")
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path.name}: is missing"):
        open_retriever(tmp_path / "index")


def test_a_vector_that_is_no_number_stops_the_build(tmp_path: Path) -> None:
    from transformers import AutoModel

    given = settings(tmp_path, "flat")
    model: Any = AutoModel.from_pretrained(tmp_path / "tiny-e5-base")
    model.encoder.layer[0].output.dense.bias.data[:] = float("nan")
    model.save_pretrained(tmp_path / "tiny-e5-base")
    with pytest.raises(RetrieverError, match="row 1: the encoder gave a vector that is not finite"):
        build(given)


def flashrag_index(tmp_path: Path, factory: str = "Flat", texts: Any = TEXTS) -> tuple[Path, Path, EncoderSettings]:
    """Files as FlashRAG's index builder leaves them: `e5_Flat.index` by index_factory, inner product, row by row."""
    corpus = write_corpus(tmp_path / "wiki.jsonl", texts)
    encoder = EncoderSettings(model=str(tiny_encoder(tmp_path / "tiny-e5-base")))
    vectors = Encoder(encoder).encode([f'"{title}"\n{text}' for title, text in texts], "passage")
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "e5_Flat.index"))
    return tmp_path / "e5_Flat.index", corpus, encoder


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,Flat", "IVF2,Flat", "SQ8"])
async def test_flashrags_files_are_opened_as_they_are(tmp_path: Path, factory: str) -> None:
    texts = list(many(200))
    index, corpus, encoder = flashrag_index(tmp_path, factory, texts)
    before = index.stat()
    for _ in range(2):
        retriever = open_flashrag(index, corpus, encoder)
        (passages,) = await retriever.search([texts[17][1]], 200)
        await retriever.close()
    made = Encoder(encoder)
    wanted = (
        made.encode([texts[17][1]], "query") @ made.encode([f'"{title}"\n{text}' for title, text in texts], "passage").T
    )[0]
    assert passages[0].id == f"d{wanted.argmax()}"
    scores = [wanted[int(passage.id[1:])] for passage in passages]
    np.testing.assert_allclose([passage.score for passage in passages], scores, atol=0.02 if factory == "SQ8" else 1e-5)
    assert (index.stat().st_mtime_ns, index.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert retriever.card.kind == "faiss"
    assert os.listdir(tmp_path / "e5_Flat.index.recall")


async def test_flashrags_vectors_are_indexed_otherwise_without_embedding(tmp_path: Path) -> None:
    index, _, encoder = flashrag_index(tmp_path, texts=list(many(300)))
    shutil.move(tmp_path / "wiki.jsonl", tmp_path / "corpus.jsonl")
    told: list[str] = []
    for kind in ("flat", "ivf-sq8"):
        given = settings(tmp_path, kind, encoder=encoder, vectors=VectorSettings(faiss=index))
        build(given, lambda doing, done, total: told.append(doing))
    assert "embedding" not in told
    assert not (tmp_path / "index" / "vectors" / "vectors.bin").exists()
    queries = [text for _, text in many(300)][:20]
    flat = await found(tmp_path / "index", queries, 1, kind="flat")
    coded = await found(tmp_path / "index", queries, 1, kind="ivf-sq8")
    assert sum(a[0].id == b[0].id for a, b in zip(flat, coded, strict=True)) >= 18


def test_flashrags_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    index, corpus, encoder = flashrag_index(tmp_path)
    other = EncoderSettings(model=str(tiny_encoder(tmp_path / "b" / "tiny-e5-base", seed=1)))
    with pytest.raises(ConfigError, match=r"row \d is not what .* makes of it \(cosine"):
        open_flashrag(index, corpus, other)
    shuffled = write_corpus(tmp_path / "shuffled.jsonl", TEXTS[::-1])
    with pytest.raises(ConfigError, match="another model, prefix or pooling, or another corpus"):
        open_flashrag(index, shuffled, encoder, scratch=tmp_path / "s1")
    shorter = write_corpus(tmp_path / "shorter.jsonl", TEXTS[:5])
    with pytest.raises(ConfigError, match="has 6 vectors where the corpus has 5 rows"):
        open_flashrag(index, shorter, encoder, scratch=tmp_path / "s2")
    euclidean = faiss.IndexFlatL2(32)
    euclidean.add(np.zeros((6, 32), np.float32))
    faiss.write_index(euclidean, str(tmp_path / "l2.index"))
    with pytest.raises(ConfigError, match="by another measure than the inner product"):
        open_flashrag(tmp_path / "l2.index", corpus, encoder)
    (tmp_path / "torn.index").write_bytes(index.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"torn\.index: not a whole faiss file"):
        open_flashrag(tmp_path / "torn.index", corpus, encoder)
    with pytest.raises(ConfigError, match="no such faiss file"):
        open_flashrag(tmp_path / "none.index", corpus, encoder)
    with pytest.raises(ConfigError, match=r"name it with --vectors\.faiss"):
        build(settings(tmp_path / "n", "faiss"))


async def test_a_cross_encoder_puts_what_was_found_in_another_order(tmp_path: Path) -> None:
    from recall.retriever.fixed import FixedRetriever
    from recall.retriever.rerank import CrossEncoder, Reranked, RerankSettings

    passages = [Passage(f"d{i}", f'"{title}"\n{text}') for i, (title, text) in enumerate(TEXTS)]
    given = RerankSettings(model=str(tiny_encoder(tmp_path / "pairs", kind="pairs")), batch=4, candidates=6)
    reader, fixed = CrossEncoder(given), FixedRetriever({}, passages)
    retriever = Reranked(fixed, reader, given.candidates)
    ((first, second), nothing) = await retriever.search(["who wrote it", " "], 2)
    scores = reader.scores("who wrote it", passages)
    order = sorted(range(6), key=lambda i: -scores[i])
    assert [first.id, second.id, nothing] == [f"d{order[0]}", f"d{order[1]}", []]
    assert first.score == pytest.approx(max(scores))
    np.testing.assert_allclose(scores, [reader.scores("who wrote it", [p])[0] for p in passages], atol=1e-5)
    assert retriever.card.id == f"{fixed.card.id}+pairs"
    await retriever.close()
    assert fixed.closed


async def test_the_real_minilm_searches_by_meaning(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    given = BuildSettings(corpus=corpus, index=tmp_path / "i", kind="hybrid", encoder=EncoderSettings(model=minilm()))
    build(given)
    queries = ["the earliest coder", "a physicist honoured in Stockholm", "luminous clock faces", "where is Edo now"]
    for kind in ("flat", "hybrid"):
        answers = await found(tmp_path / "i", queries, 1, kind=kind)
        assert [passages[0].id for passages in answers][1:] == ["d2", "d3", "d5"]
