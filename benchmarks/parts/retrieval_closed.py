"""The closed corpus: how much of what a question rests on is found by the question itself, next to the plain way.

The corpus is that of the paragraphs of the multi-hop questions at hand, with distractors; recall@5 is the share of a
question's supporting paragraphs among the first five passages, in the mean over questions, and all@5 the share of
questions with all of them. The peers are what each library's own page shows: no index directory, no service, the
tokenizer beside them.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from parts.memory import own_mb
from recall.datasets.closed import contents_of, write_corpus
from recall.datasets.qa import Question, read_questions
from recall.retriever.build import BuildSettings, build
from recall.retriever.encoder import Encoder, EncoderSettings
from recall.retriever.manifest import Kind
from recall.retriever.open import OpenSettings, open_index
from recall.retriever.progress import Report
from recall.retriever.vectors import VectorFacts, map_vectors

SETS = {"hotpot": "hotpotqa", "2wiki": "2wikimultihopqa", "musique": "musique"}
"""The benchmarks, by the names that the tables have for them, with their folders."""
DISTRACTORS = (
    "2wikimultihopqa/distractor_corpus_6119.jsonl",
    "wiki18_sample/passages.jsonl",
    "bamboogle/wiki18_passages.jsonl",
)
KINDS: tuple[Kind, ...] = ("bm25", "tantivy", "flat", "ivf-sq8", "ivf-pq", "hnsw", "hybrid")
TOKENS = 128
"""Where passages and queries are cut, as for the figures of the design page."""
K = 5

Search = Callable[[Sequence[str]], list[list[str]]]
"""The contents of the first five passages for each query."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The corpus with its questions."""

    corpus: Path
    """JSON lines of id and contents."""
    contents: list[str]
    """The passages."""
    questions: Mapping[str, list[Question]]
    """By benchmark."""


def closed_corpus(data: Path, to: Path) -> Closed:
    """Write the corpus of the questions in `data`, which is laid out as `recall data download` does it."""
    files = [data / folder / "dev_with_context.jsonl" for folder in SETS.values()]
    write_corpus([*files, *(data / name for name in DISTRACTORS)], to)
    questions = {name: read_questions(file) for name, file in zip(SETS, files, strict=True)}
    return Closed(to, list(contents_of(to)), questions)


def scored(closed: Closed, search: Search) -> dict[str, float]:
    """Recall@5 and all@5 by benchmark, and queries a second on the way."""
    row: dict[str, float] = {}
    seconds, count = 0.0, 0
    for name, questions in closed.questions.items():
        began = time.perf_counter()
        found = search([question.question for question in questions])
        seconds, count = seconds + time.perf_counter() - began, count + len(questions)
        shares = [_share(question, texts) for question, texts in zip(questions, found, strict=True)]
        row[f"{name} R@5"] = statistics.fmean(shares)
        row[f"{name} all@5"] = statistics.fmean(share == 1 for share in shares)
    return row | {"queries_per_s": count / seconds}


def ours(closed: Closed, index: Path, model: str, report: Report) -> dict[str, dict[str, float]]:
    """Every kind of index of ours, with what it takes."""
    rows: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        encoder = EncoderSettings(model=model, query_tokens=TOKENS, passage_tokens=TOKENS)
        given = BuildSettings(corpus=closed.corpus, index=index, kind=kind, of=("bm25", "flat"), encoder=encoder)
        facts = build(given, report).indexes[kind]
        before = own_mb("RssAnon")
        retriever = open_index(index, OpenSettings(kind=kind))
        row = scored(
            closed,
            lambda queries, r=retriever: [[p.contents for p in found] for found in r.find(queries, K)],  # type: ignore[misc]
        )
        size = sum(file.bytes for file in facts.files.values())
        if kind == "flat":
            vectors = VectorFacts.model_validate(facts.parameters["vectors"])
            assert vectors.file is not None, "the vectors are whole"
            size = vectors.file.bytes
        rows[kind] = {
            **row, "index_mb": size / 1e6, "build_s": facts.seconds, "private_mb": own_mb("RssAnon") - before,
        }  # fmt: skip
    return rows


def peers(closed: Closed, index: Path, model: str) -> dict[str, dict[str, float]]:
    """The same searches, written the plain way."""
    return {
        "bm25s, plain": scored(closed, _plain_bm25s(closed.contents, stem_queries=True)),
        "bm25s, queries unstemmed": scored(closed, _plain_bm25s(closed.contents, stem_queries=False)),
        "tantivy, plain": scored(closed, _plain_tantivy(closed.contents)),
        "MiniLM, plain": scored(closed, _plain_minilm(closed.contents, index, model)),
    }


def same_vectors(closed: Closed, index: Path, model: str, count: int = 128) -> float:
    """The largest difference between our vectors and those of the plain way, over some passages."""
    rows = np.random.default_rng(0).choice(len(closed.contents), count, replace=False)
    plain = np.concatenate([_mean_pooled([closed.contents[row]], model) for row in rows])
    return float(np.abs(plain - _vectors(index)[rows]).max())


def encoding(closed: Closed, model: str, count: int = 100) -> dict[str, float]:
    """Processor time of the encoder, on one thread: what embedding a larger corpus takes is so many times this."""
    import torch

    encoder = Encoder(EncoderSettings(model=model, query_tokens=TOKENS, passage_tokens=TOKENS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    texts = {
        "passage": closed.contents[:: len(closed.contents) // count][:count],
        "query": [question.question for questions in closed.questions.values() for question in questions][:count],
    }
    row = {}
    for of in ("query", "passage"):
        spent = time.process_time()
        encoder.encode(texts[of], cast(Any, of))
        row[f"{of}_cpu_ms"] = (time.process_time() - spent) / count * 1000
    torch.set_num_threads(threads)
    return row


def many_questions(data: Path) -> list[str]:
    """All questions at hand, the benchmarks in turn, each once."""
    files = [path for folder in SETS.values() for path in sorted((data / folder).glob("dev*_questions.jsonl"))]
    lists = [[question.question for question in read_questions(path)] for path in files]
    return list(dict.fromkeys(text for texts in zip(*lists, strict=False) for text in texts))


def _share(question: Question, found: Sequence[str]) -> float:
    wanted = {_key(f'"{p.title}"\n{p.text}') for p in question.paragraphs if p.supporting}
    return len(wanted & {_key(text) for text in found}) / len(wanted)


def _key(text: str) -> str:
    """A passage as `write_corpus` compares it."""
    return " ".join(text.split())


def _plain_bm25s(contents: Sequence[str], *, stem_queries: bool) -> Search:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25()
    index.index(bm25s.tokenize(contents, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)

    def search(queries: Sequence[str]) -> list[list[str]]:
        options = {"stopwords": "en", "stemmer": stemmer} if stem_queries else {}
        words = bm25s.tokenize(queries, show_progress=False, **options)
        rows, _ = index.retrieve(words, k=K, show_progress=False)
        return [[contents[row] for row in found] for found in rows]

    return search


def _plain_tantivy(contents: Sequence[str]) -> Search:
    import tantivy

    schema = tantivy.SchemaBuilder().add_unsigned_field("row", stored=True)
    index = tantivy.Index(schema.add_text_field("contents", tokenizer_name="en_stem").build())
    writer = index.writer(num_threads=1)
    for row, text in enumerate(contents):
        writer.add_document(tantivy.Document(row=row, contents=text))
    writer.commit()
    index.reload()
    searcher = index.searcher()

    def search(queries: Sequence[str]) -> list[list[str]]:
        found = []
        for query in queries:
            parsed, _ = index.parse_query_lenient(query, ["contents"])
            hits = searcher.search(parsed, K).hits
            found.append([contents[searcher.doc(address)["row"][0]] for _, address in hits])
        return found

    return search


def _plain_minilm(contents: Sequence[str], index: Path, model: str) -> Search:
    """Queries are encoded the plain way; the passages' vectors are ours, which `same_vectors` compares."""
    matrix = np.array(_vectors(index))

    def search(queries: Sequence[str]) -> list[list[str]]:
        scores = np.concatenate([_mean_pooled([query], model) for query in queries]) @ matrix.T
        return [[contents[row] for row in np.argsort(-found)[:K]] for found in scores]

    return search


def _vectors(index: Path) -> Any:
    from recall.retriever import manifest

    facts = VectorFacts.model_validate(manifest.read(index).indexes["flat"].parameters["vectors"])
    return map_vectors(facts, index)


_LOADED: dict[str, Any] = {}


def _mean_pooled(texts: list[str], model: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The lines of the model's own card."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    if model not in _LOADED:
        _LOADED[model] = (AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model).eval())
    tokenizer, encoder = _LOADED[model]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**batch)[0]
    mask = batch["attention_mask"].unsqueeze(-1).float()
    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return np.asarray(torch.nn.functional.normalize(pooled, p=2, dim=1).numpy(), np.float32)
