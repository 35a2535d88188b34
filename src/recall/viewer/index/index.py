"""Keeps the index of a run: takes in the files that are new, forgets those that are gone, and says what is in it.

The files of a run are renamed into place whole, so a file that has the same size and time is the same. Several
processes may keep one index; one at a time writes. What a killed one began is dropped by the next.
"""

import fcntl
import hashlib
import math
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.viewer.index.columns import TYPES, Column, append, open_columns, part
from recall.viewer.index.frames import Place
from recall.viewer.index.reading import BATCH, Chunk, Told, read_files

SCHEMA = 1
"""Of the index; one of another number is made anew."""
MANY_TOOLS = 63
"""Tools that have a bit of their own; of the others a table says which rows called them."""

_TABLES = f"""
create table file (id integer primary key, name text, size integer, mtime integer, step integer, split integer,
    first integer, rows integer, alive integer, problem text);
create table name (what text, number integer, text text, primary key (what, number)) without rowid;
create table task (id integer primary key, name text unique, question text, kind text, depth integer);
create table short (id integer primary key, answer text, problem text);
create table called (tool integer, row integer, primary key (tool, row)) without rowid;
create virtual table said using fts5(words, content='', columnsize=0);
create virtual table asked using fts5(words, content='', columnsize=0);
pragma user_version = {SCHEMA};
"""

Progress = Callable[[int, int, int], None]
"""Told, on the way: rows in the index, bytes read of those to read."""


@dataclass(frozen=True, slots=True)
class FileNote:
    """One file of trajectories, as the index knows it."""

    name: str
    step: int
    split: str
    first: int
    """Its first row."""
    rows: int
    alive: bool
    """Whether it is still there, as it was."""
    problem: str
    """What is wrong with it, in words; empty when nothing is."""


@dataclass(frozen=True)
class Snapshot:
    """The index at one moment; whoever holds it may read it while the index grows."""

    path: Path
    """The run directory."""
    folder: Path
    """Of the index."""
    rows: int = 0
    columns: Mapping[str, Column] = field(default_factory=dict)
    files: tuple[FileNote, ...] = ()
    splits: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """Names of the parts of rewards, in the order of their columns."""

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The tables of words and names, to read."""
        with closing(sqlite3.connect(f"file:{self.folder / 'index.sqlite'}?mode=ro", uri=True)) as opened:
            yield opened

    def place(self, row: int) -> Place:
        """Where the line of a row is in its file."""
        frame, offset, length = (int(self.columns[name][row]) for name in ("frame", "offset", "length"))
        return Place(frame, offset, length)

    def file(self, row: int) -> FileNote:
        """The file of a row."""
        return self.files[int(self.columns["file"][row])]


def cache_folder() -> Path:
    """Where indexes are kept: `recall/window` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "recall" / "window"


class RunIndex:
    """The index of one run directory. `refresh` and `snapshot` may be called from any thread."""

    def __init__(self, run: Path, cache: Path | None = None) -> None:
        """The index of `run`, kept under `cache`; nothing is read yet."""
        self.run = run
        digest = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:24]
        self.folder = (cache or cache_folder()) / digest
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """What is in the index now, without looking at the run.

        Raises:
            ConfigError: the cache directory cannot be used.
        """
        if self._snapshot is None:
            with self._lock, self._writing() as database:
                self._publish(database)
        assert self._snapshot is not None, "_publish has set it"
        return self._snapshot

    def refresh(self, progress: Progress | None = None) -> Snapshot:
        """Take in what is new in the run.

        Raises:
            ConfigError: the cache directory cannot be used.
        """
        with self._lock, self._writing() as database:
            fresh = self._forget(database)
            if self._snapshot is None or not fresh:
                self._publish(database)
            total, read = sum(stat.st_size for _, stat in fresh), 0
            taking = _Taking(self.folder, database)
            for (path, stat), parts in zip(fresh, read_files(fresh), strict=True):
                taking.file(path, stat, parts)
                read += stat.st_size
                if path == fresh[-1][0] or taking.uncommitted >= BATCH:
                    taking.commit()
                    self._publish(database)
                if progress is not None:
                    progress(taking.rows, read, total)
        return self.snapshot()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder.with_suffix(".lock"), "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with closing(self._opened()) as database:
                    yield database
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{self.folder}: the index cannot be kept there: {error}; set XDG_CACHE_HOME") from error

    def _opened(self) -> sqlite3.Connection:
        file = self.folder / "index.sqlite"
        database = sqlite3.connect(file, isolation_level=None)
        try:
            version = database.execute("pragma user_version").fetchone()[0]
        except sqlite3.DatabaseError:
            version = -1
        if version != SCHEMA:
            database.close()
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            database = sqlite3.connect(file, isolation_level=None)
            # Written anew from the run whenever it is lost, so it need not survive the machine.
            database.executescript("pragma journal_mode = wal;" + _TABLES)
        database.execute("pragma synchronous = off")
        return database

    def _forget(self, database: sqlite3.Connection) -> list[tuple[Path, os.stat_result]]:
        """Mark the files that are gone or changed; those to take in, by step."""
        known = {
            name: (number, size, mtime)
            for number, name, size, mtime in database.execute("select id, name, size, mtime from file where alive")
        }
        fresh: list[tuple[int, Path, os.stat_result]] = []
        for path in (self.run / "trajectories").glob("step-*.jsonl.zst"):
            match = re.fullmatch(r"step-(\d+)(?:-.+)?\.jsonl\.zst", path.name)
            if match is None:
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # a run that is resumed takes files away
                continue
            held = known.pop(path.name, None)
            if held is not None and held[1:] != stamp(stat):
                known[path.name] = held
                held = None
            if held is None:
                fresh.append((int(match[1]), path, stat))
        if known:
            database.executemany("update file set alive = 0 where id = ?", [(number,) for number, *_ in known.values()])
        return [(path, stat) for _, path, stat in sorted(fresh, key=lambda each: (each[0], each[1].name))]

    def _publish(self, database: sqlite3.Connection) -> None:
        names: dict[str, list[str]] = {"split": [], "kind": [], "tool": [], "part": []}
        for what, text in database.execute("select what, text from name order by what, number"):
            names[what].append(text)
        files = tuple(
            FileNote(name, step, names["split"][split], first, rows, bool(alive), problem)
            for name, step, split, first, rows, alive, problem in database.execute(
                "select name, step, split, first, rows, alive, problem from file order by id"
            )
        )
        rows = max((file.first + file.rows for file in files), default=0)
        self._snapshot = Snapshot(
            self.run,
            self.folder,
            rows,
            open_columns(self.folder, rows, len(names["part"])),
            files,
            *(tuple(names[what]) for what in ("split", "kind", "tool", "part")),
        )


class _Taking:
    """Takes files in."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder, self._database = folder, database
        self._names: dict[str, dict[str, int]] = {}
        found = database.execute("select max(first + rows), count(*) from file").fetchone()
        self.rows: int = found[0] or 0
        """In the index, with those that are not committed yet."""
        self.uncommitted = 0
        """Rows since the last commit."""
        self._file: int = found[1]
        self._held: list[Mapping[str, Sequence[Any]]] = []
        """Columns of rows that are not written yet; files are many and small, and columns take to few large writes."""

    def commit(self) -> None:
        """Make what was taken in count."""
        self._flush()
        self._database.execute("commit")
        self.uncommitted = 0

    def file(self, path: Path, stat: os.stat_result, parts: Iterable[Chunk | Told]) -> None:
        """Append the rows of a file, and what is said of it."""
        if not self._database.in_transaction:
            self._database.execute("begin immediate")
        first = self.rows
        for read in parts:
            if isinstance(read, Chunk):
                self._write(read)
                continue
            count, split = self.rows - first, self._number("split", read.split)
            self._database.execute(
                "insert into file values (?, ?, ?, ?, ?, ?, ?, ?, 1, ?)",
                (self._file, path.name, *stamp(stat), read.step, split, first, count, read.problem),
            )
            self._file += 1

    def _write(self, chunk: Chunk) -> None:
        count, start, fields = chunk.count, self.rows, chunk.fields
        values: dict[str, Sequence[Any]] = dict(fields)
        values["frame"], values["offset"], values["length"] = chunk.places
        values["file"], values["step"] = [self._file] * count, [chunk.step] * count
        values["split"] = [self._number("split", chunk.split)] * count
        kinds = {kind: self._number("kind", kind) for kind in dict.fromkeys(fields["kind"])}
        values["kind"] = [kinds[kind] for kind in fields["kind"]]
        values["task"] = self._tasks(fields)
        values["tools"] = self._tools(fields["tools"], start)
        for name in dict.fromkeys(name for parts in fields["parts"] for name in parts):
            self._number("part", name)
        known = self._all("part")
        for name, number in known.items():
            values[part(number)] = [parts.get(name, math.nan) for parts in fields["parts"]]
        self._held.append(values)
        numbers = range(start, start + count)
        self._database.executemany(
            "insert or replace into short values (?, ?, ?)",
            zip(numbers, map(clean, fields["answer"]), map(clean, fields["problem"]), strict=True),
        )
        self._database.executemany(
            "insert into said (rowid, words) values (?, ?)", zip(numbers, map(clean, fields["words"]), strict=True)
        )
        self.rows += count
        self.uncommitted += count
        if sum(len(each["file"]) for each in self._held) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        counts = [len(each["file"]) for each in self._held]
        names = [*TYPES, *map(part, range(len(self._all("part"))))]
        held = list(zip(self._held, counts, strict=True))
        values = {
            name: list(chain.from_iterable(each.get(name) or repeat(math.nan, count) for each, count in held))
            for name in names
        }
        if held:
            append(self._folder, self.rows - sum(counts), values, len(names) - len(TYPES))
        self._held = []

    def _tasks(self, fields: Mapping[str, Sequence[Any]]) -> list[int]:
        known: dict[str, int] = {}
        about = zip(*(fields[name] for name in ("task", "question", "kind", "depth")), strict=True)
        for task, question, kind, depth in about:
            if task in known:
                continue
            name = clean(task)
            found = self._database.execute("select id from task where name = ?", (name,)).fetchone()
            if found is None:
                new = self._database.execute(
                    "insert into task (name, question, kind, depth) values (?, ?, ?, ?)",
                    (name, clean(question), clean(kind), min(depth, 1 << 31)),
                ).lastrowid
                words = f"{name} {clean(question)}"
                self._database.execute("insert into asked (rowid, words) values (?, ?)", (new, words))
                found = (new,)
            known[task] = found[0]
        return [known[task] for task in fields["task"]]

    def _tools(self, called: Sequence[tuple[str, ...]], start: int) -> list[int]:
        """Bits of the tools that each row called; those that have no bit are written to their table."""
        numbers = {tools: [self._number("tool", name) for name in tools] for tools in dict.fromkeys(called)}
        many = {tools for tools, of in numbers.items() if any(number >= MANY_TOOLS for number in of)}
        bits = {tools: sum({1 << min(number, MANY_TOOLS) for number in of}) for tools, of in numbers.items()}
        if many:
            rows = [
                (number, start + at)
                for at, tools in enumerate(called)
                if tools in many
                for number in numbers[tools]
                if number >= MANY_TOOLS
            ]
            self._database.executemany("insert or ignore into called values (?, ?)", rows)
        return [bits[tools] for tools in called]

    def _number(self, what: str, text: str) -> int:
        known = self._all(what)
        if text in known:
            return known[text]
        text = clean(text)
        if text not in known:
            known[text] = len(known)
            self._database.execute("insert into name values (?, ?, ?)", (what, known[text], text))
        return known[text]

    def _all(self, what: str) -> dict[str, int]:
        if what not in self._names:
            found = self._database.execute("select text, number from name where what = ? order by number", (what,))
            self._names[what] = dict(found)
        return self._names[what]


def stamp(stat: os.stat_result) -> tuple[int, int]:
    """What tells one content of a file from another: its size and its time."""
    return stat.st_size, stat.st_mtime_ns


def clean(text: str) -> str:
    """`text` as a database takes it: a lone surrogate becomes a question mark, and no NUL ends it."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\x00", " ")
