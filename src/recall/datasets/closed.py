"""A closed corpus: the paragraphs that came with questions, with distractors beside them, each text once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from recall.datasets.qa import question_from_row
from recall.errors import ConfigError
from recall.store import write_atomic


def write_corpus(files: Sequence[Path], to: Path) -> tuple[int, int]:
    """Write one corpus in FlashRAG's format, numbered from 0.

    Args:
        files: JSON lines of questions that carry paragraphs, and of passages `{"id", "contents"}`; a passage's own id
            is not kept, since ids of several corpora collide.
        to: the file.

    Returns:
        How many passages were written, and how many were left out because their text was there already.

    Raises:
        ConfigError: a file cannot be read, or a row is neither.
    """
    seen: set[str] = set()
    counts = [0, 0]

    def lines() -> Iterator[bytes]:
        for contents in (contents for file in files for contents in contents_of(file)):
            key = " ".join(contents.split())
            if key in seen:
                counts[1] += 1
                continue
            seen.add(key)
            yield json.dumps({"id": str(counts[0]), "contents": contents}, ensure_ascii=False).encode() + b"\n"
            counts[0] += 1

    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(to, lambda out: [out.write(line) for line in lines()])
    return counts[0], counts[1]


def contents_of(file: Path) -> Iterator[str]:
    """The passages of a file, as `"title"`, a line break, and the text.

    Raises:
        ConfigError: the file cannot be read, or a row is neither a question with paragraphs nor a passage.
    """
    try:
        with file.open("rb") as rows:
            for number, line in enumerate(rows, start=1):
                if not line.isspace():
                    yield from _contents(line, f"{file} row {number}")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error


def _contents(line: bytes, where: str) -> Iterator[str]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        raise ConfigError(f"{where}: not JSON: {fault}") from None
    if isinstance(row, dict) and isinstance(row.get("contents"), str):
        yield row["contents"]
        return
    paragraphs = question_from_row(row, where).paragraphs
    if not paragraphs:
        raise ConfigError(f"{where}: neither a passage with contents nor a question with paragraphs")
    for paragraph in paragraphs:
        yield f'"{paragraph.title}"\n{paragraph.text}'
