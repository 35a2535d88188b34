"""Sparse search by tantivy: an index on disk, memory-mapped, that skips what cannot reach the best k.

For corpora at the scale of Wikipedia, where `bm25.py` would add up every passage that shares a word with the query. The
words are cut by tantivy's own analyser, built from the same settings when the index is written and when it is searched.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recall.config import Settings
from recall.errors import ConfigError
from recall.retriever.corpus import Corpus
from recall.retriever.finder import Hits
from recall.retriever.progress import Report
from recall.retriever.tokens import StopWords, written_out

_COMMIT_ROWS = 200_000
_ANALYSER = "recall"


class AnalyserSettings(Settings):
    """How tantivy cuts a text into words: runs of letters and digits, of at most 40 bytes, in lower case, stemmed."""

    language: str = "english"
    """The language of the stems, as tantivy calls it; or none."""
    stopwords: StopWords = "english"
    """Words that queries leave out, if they have others: English ones, none, or a list."""

    def resolved(self) -> "AnalyserSettings":
        """The same with its stop words written out.

        Raises:
            ConfigError: there is no such language.
        """
        _analyser(self)
        return self.model_copy(update={"stopwords": written_out(self.stopwords)})


class FullText:
    """A finder over a directory of tantivy."""

    def __init__(self, directory: Path, settings: AnalyserSettings) -> None:
        """Open it; the settings are `resolved`.

        Raises:
            ConfigError: a file is damaged.
        """
        import tantivy

        try:
            self._index: Any = tantivy.Index.open(str(directory))
        except ValueError as error:
            raise ConfigError(f"{directory}: not a whole tantivy index: {error}") from None
        self._analyser = _analyser(settings)
        # The index has them all, and so have the lengths of passages. In a query they cost nearly all of the time, and
        # on the closed corpus half a point of recall.
        self._stopwords = {stem for word in settings.stopwords for stem in self._analyser.analyze(word)}
        self._searcher: Any = self._index.searcher()

    @staticmethod
    def build(corpus: Corpus, into: Path, settings: AnalyserSettings, report: Report) -> None:
        """Write the index of a corpus into the directory `into`; goes on with one that was begun."""
        import tantivy

        into.mkdir(parents=True, exist_ok=True)
        schema = (
            tantivy.SchemaBuilder()
            .add_unsigned_field("row", fast=True)
            .add_text_field("contents", tokenizer_name=_ANALYSER, index_option="freq")
            .build()
        )
        index: Any = tantivy.Index(schema, str(into), reuse=True)
        index.register_tokenizer(_ANALYSER, _analyser(settings))
        # Rows are added in order, and a commit holds all before it, so what is there says where to go on. One thread
        # keeps it so, and makes the same index each time.
        done = index.searcher().num_docs
        writer: Any = index.writer(heap_size=256_000_000, num_threads=1)
        while done < len(corpus):
            stop = min(done + _COMMIT_ROWS, len(corpus))
            for row, contents in enumerate(corpus.contents(done, stop), done):
                document = tantivy.Document()
                document.add_unsigned("row", row)
                document.add_text("contents", contents)
                writer.add_document(document)
                if row % 4096 == 0:
                    report("indexing (tantivy)", row, len(corpus))
            writer.commit()
            done = stop
        writer.wait_merging_threads()
        report("indexing (tantivy)", done, done)
        _without_locks(into)

    def find(self, texts: Sequence[str], k: int) -> list[Hits]:
        """The rows with the highest scores."""
        return [self._best(text, k) for text in texts]

    def close(self) -> None:
        """Let go of the mapped files."""
        self._searcher = self._index = None

    def _best(self, text: str, k: int) -> Hits:
        import tantivy

        index, searcher = self._index, self._searcher
        should = tantivy.Occur.Should
        words = self._analyser.analyze(text)
        # equal words are kept: each counts, as it does in bm25s and Lucene
        terms = [
            (should, tantivy.Query.term_query(index.schema, "contents", word, "freq"))
            for word in [word for word in words if word not in self._stopwords] or words
        ]
        if not terms:
            return []
        found = searcher.search(tantivy.Query.boolean_query(terms), k, count=False).hits
        rows = searcher.fast_field_values("row", [address for _, address in found])
        hits = [(row, score) for row, (score, _) in zip(rows, found, strict=True)]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _analyser(settings: AnalyserSettings) -> Any:
    """Tantivy's own `en_stem`, for any language.

    Raises:
        ConfigError: there is no such language.
    """
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.remove_long(40)).filter(tantivy.Filter.lowercase())
    try:
        if settings.language != "none":
            builder = builder.filter(tantivy.Filter.stemmer(settings.language))
    except ValueError as error:
        raise ConfigError(f"--analyser.language: {settings.language!r} is not accepted: {error}") from None
    return builder.build()


def _without_locks(directory: Path) -> None:
    """Remove the writer's lock files, which are not part of the index."""
    for path in directory.glob(".tantivy-*.lock"):
        os.unlink(path)
