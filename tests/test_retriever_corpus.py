import gzip
import json
import os
from pathlib import Path

import pytest
import zstandard

from recall.errors import ConfigError, RetrieverError
from recall.retriever.base import Passage
from recall.retriever.corpus import open_corpus, prepare
from recall.retriever.progress import silent
from retriever_corpora import TEXTS, write_corpus


def compressed(path: Path, suffix: str) -> Path:
    data = write_corpus(path).read_bytes()
    packed = path.with_name(path.name + suffix)
    half = len(data) // 2
    if suffix == ".gz":
        packed.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    else:
        one = zstandard.ZstdCompressor(write_content_size=False)
        packed.write_bytes(one.compress(data[:half]) + one.compress(data[half:]))
    path.unlink()
    return packed


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_row_is_read_by_its_number(tmp_path: Path, suffix: str) -> None:
    source = compressed(tmp_path / "c.jsonl", suffix) if suffix else write_corpus(tmp_path / "c.jsonl")
    corpus = prepare(source, tmp_path / "index")
    assert len(corpus) == len(TEXTS)
    for row, (title, text) in enumerate(TEXTS):
        assert corpus[row] == Passage(f"d{row}", f'"{title}"\n{text}')
    assert list(corpus.contents(1, 3)) == [corpus[1].contents, corpus[2].contents]
    assert (tmp_path / "index" / "corpus" / "corpus.jsonl").exists() == bool(suffix)
    corpus.close()
    corpus.close()


def test_a_plain_and_a_compressed_corpus_have_one_checksum(tmp_path: Path) -> None:
    plain = prepare(write_corpus(tmp_path / "c.jsonl"), tmp_path / "a").facts.file.sha256
    (tmp_path / "z").mkdir()
    assert prepare(compressed(tmp_path / "z" / "c.jsonl", ".zst"), tmp_path / "b").facts.file.sha256 == plain


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_corpus_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    packed = compressed(tmp_path / "c.jsonl", suffix)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"c\.jsonl\.(gz|zst): not a whole"):
        prepare(packed, tmp_path / "index")
    assert not list((tmp_path / "index").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "row 2: not JSON"),
        ("", "row 2: empty line"),
        ("[1]", "row 2: not an object"),
        ('{"contents": "a"}', "row 2: id: missing"),
        ('{"id": "1"}', "row 2: contents: missing"),
        ('{"id": true, "contents": "a"}', "row 2: id: must be text, not bool"),
        ('{"id": "1", "contents": ["a"]}', "row 2: contents: must be text, not list"),
        ('{"id": "1", "contents": "\\ud800"}', "row 2: contents: holds half of a surrogate pair"),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, line: str, problem: str) -> None:
    good = '{"id": "0", "contents": "x"}\n'
    (tmp_path / "c.jsonl").write_text(good + line + "\n" + good, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        prepare(tmp_path / "c.jsonl", tmp_path / "index")


def test_bytes_that_are_not_utf8_are_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'{"id": "0", "contents": "\xff"}\n')
    with pytest.raises(ConfigError, match="row 1: not JSON: 'utf-8'"):
        prepare(tmp_path / "c.jsonl", tmp_path / "index")


def test_what_other_corpora_write_is_read_too(tmp_path: Path) -> None:
    rows = [{"id": 7, "title": "T", "text": "b"}, {"id": "8", "text": "only"}, {"id": "9", "contents": "c", "x": [1]}]
    text = "\ufeff" + "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "c.jsonl").write_text(text + "\n\n", encoding="utf-8")
    corpus = prepare(tmp_path / "c.jsonl", tmp_path / "index")
    assert [corpus[row] for row in range(3)] == [Passage("7", '"T"\nb'), Passage("8", "only"), Passage("9", "c")]
    assert len(corpus) == 3
    corpus.close()


def test_a_corpus_without_rows_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="has no rows"):
        prepare(tmp_path / "c.jsonl", tmp_path / "index")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        prepare(tmp_path / "other.jsonl", tmp_path / "index")


def test_an_unchanged_corpus_is_read_once(tmp_path: Path) -> None:
    source, told = write_corpus(tmp_path / "c.jsonl"), []
    prepare(source, tmp_path / "index", lambda doing, done, total: told.append(doing)).close()
    assert told
    told.clear()
    prepare(source, tmp_path / "index", lambda doing, done, total: told.append(doing)).close()
    assert not told
    os.utime(source, ns=(0, 0))
    prepare(source, tmp_path / "index", lambda doing, done, total: told.append(doing)).close()
    assert told


def test_an_index_finds_its_corpus_where_both_were_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    facts = prepare(write_corpus(tmp_path / "here" / "c.jsonl"), tmp_path / "here" / "index").facts
    (tmp_path / "here").rename(tmp_path / "there")
    corpus = open_corpus(facts, tmp_path / "there" / "index")
    assert corpus[0].id == "d0"
    corpus.close()
    (tmp_path / "there" / "c.jsonl").rename(tmp_path / "alone.jsonl")
    open_corpus(facts, tmp_path / "there" / "index", at=tmp_path / "alone.jsonl").close()
    with pytest.raises(ConfigError, match="is missing"):
        open_corpus(facts, tmp_path / "there" / "index")


def test_another_corpus_or_other_offsets_are_refused(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.jsonl")
    facts = prepare(source, tmp_path / "index").facts
    offsets = tmp_path / "index" / "corpus" / "offsets.npy"
    whole = offsets.read_bytes()
    for torn in (whole[:-8], b"", whole[:20]):
        offsets.write_bytes(torn)
        with pytest.raises(ConfigError, match=r"offsets\.npy: not"):
            open_corpus(facts, tmp_path / "index")
    offsets.write_bytes(whole)
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("radium", "barium"), encoding="utf-8")
    with pytest.raises(ConfigError, match="its bytes are not those"):
        open_corpus(facts, tmp_path / "index")
    source.write_text(text + text, encoding="utf-8")
    with pytest.raises(ConfigError, match="bytes where the index was built with"):
        open_corpus(facts, tmp_path / "index")


def test_a_corpus_that_changes_under_an_open_index_is_our_failure(tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "c.jsonl")
    corpus = prepare(source, tmp_path / "index", silent)
    with open(source, "r+b") as file:
        file.write(b"#" * 200)
    with pytest.raises(RetrieverError, match=r"row 1: not JSON.*changed while it was open"):
        corpus[0]
    corpus.close()
