"""`recall eval bfcl`: the Berkeley function-calling leaderboard, judged by its own checkers."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from recall.config import Positional, Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.engines import ServedPolicySettings

if TYPE_CHECKING:
    from recall.evaluation.bfcl.checkers import Checkers
    from recall.evaluation.bfcl.entries import Entry
    from recall.evaluation.bfcl.play import Judged, Verdict
    from recall.evaluation.bfcl.results import Verdicts

BFCL_LIMITS = Limits(max_turns=400, max_tokens=32_768, max_turn_tokens=1024, max_calls=1000, max_result_chars=32_768)
"""The budget of an entry; the leaderboard itself allows 20 steps of each user turn."""
WIDE = BFCL_LIMITS.model_copy(update={"max_tokens": 10_000_000, "max_turn_tokens": 100_000})
"""Of a script, whose tokens are nobody's."""


_SHOWN = 8
"""Entries that a comparison shows in a terminal, of those that were fixed and of those that broke."""


class EvalBfcl(Settings):
    """Play the leaderboard's entries with a policy and have its own checkers judge them.

    The checkers live in an environment of their own, made once by --setup. What was played is kept in --out; the same
    command goes on there after an interruption. The last line printed is the result as JSON.
    """

    categories: tuple[str, ...] = ("all",)
    """Which categories; `all` is those that need nothing but the package, and `memory` the three kinds of memory."""
    out: Path | None = None
    """The folder of the results."""
    setup: bool = False
    """Make the checkers' environment and stop."""
    checkers: Path | None = None
    """An interpreter that has bfcl-eval; none takes what --setup made."""
    data: Path | None = None
    """The leaderboard's data; none takes that of the package."""
    encoder: Path | None = None
    """For memory_vector, the directory of the sentence encoder all-MiniLM-L6-v2."""
    entries: int | None = Field(default=None, ge=1)
    """Play only so many of each category, the first ones, and what they depend on."""
    script: Literal["truth", "empty", "mixed"] | None = None
    """Play the ground truth, nothing, or a mixture with mistakes instead of a model; they test the whole of it."""
    official: bool = False
    """Have `bfcl evaluate` judge the result files as well, and compare entry by entry."""
    at_once: int = Field(default=32, ge=1, le=1024)
    """Entries under way at the same time."""
    temperature: float = Field(default=0.001, ge=0)
    """Of sampling; the leaderboard's own is 0.001."""
    seed: int = 0
    """Of sampling."""
    save_trajectories: bool = True
    """Keep the episodes behind the verdicts, for recall view and recall show."""
    policy: ServedPolicySettings = ServedPolicySettings()
    limits: Limits = BFCL_LIMITS

    def main(self) -> int:
        """Set up, or measure and print."""
        from recall.evaluation.bfcl.setup import default_home, interpreter_of, make

        if self.setup:
            print(f"checkers: {make(default_home())}")
            return 0
        if self.out is None:
            raise ConfigError("--out: missing; the folder of the results")
        return asyncio.run(self._measure(self.checkers or interpreter_of(default_home()), self.out))

    async def _measure(self, interpreter: Path, out: Path) -> int:
        from recall.evaluation.bfcl.checkers import Checkers
        from recall.evaluation.bfcl.official import write_results
        from recall.evaluation.bfcl.results import Verdicts
        from recall.evaluation.bfcl.summary import summarize

        names = self._names()
        async with Checkers(interpreter, encoder=self.encoder) as checkers:
            entries = await self._entries(checkers, names)
            verdicts = Verdicts(out, self._manifest(names))
            if any(entry.id not in verdicts.known for entry in entries):
                await self._play(checkers, entries, verdicts)
                print(f"the checkers' process took {(await checkers.usage())['peak_mib']:.0f} MiB at most")
        found = verdicts.of(names)
        summary = summarize(found, names, len(verdicts.faults))
        verdicts.write("summary.json", summary)
        results = write_results(out, found)
        _show(summary)
        print(f"results as bfcl evaluate reads them: {results}")
        differing = await self._compared(interpreter, results, found) if self.official else {}
        print(json.dumps({"model": self.script or self.policy.model, **summary, **differing}))
        return int(summary["faults"] > 0 or bool(differing.get("differing")))

    def _names(self) -> tuple[str, ...]:
        from recall.evaluation.bfcl.entries import CATEGORIES, OFFLINE

        groups = {"all": OFFLINE, "memory": tuple(name for name, sort in CATEGORIES.items() if sort == "memory")}
        return tuple(dict.fromkeys(each for name in self.categories for each in groups.get(name, (name,))))

    async def _entries(self, checkers: "Checkers", names: tuple[str, ...]) -> "list[Entry]":
        """What is played: first the conversations that fill memories, then all else.

        Raises:
            ConfigError: a category is unknown, or what it needs is not there.
        """
        from recall.evaluation.bfcl.entries import read_entries
        from recall.evaluation.bfcl.setup import NEEDS

        data = self.data or await checkers.package() / "data"
        found: list[Entry] = []
        for name in names:
            entries = read_entries(data, name)
            needed = NEEDS.get(name, {})
            if missing := await checkers.lacking(list(needed)):
                packages = " ".join(needed[module] for module in missing)
                raise ConfigError(
                    f"category {name!r}: the checkers' environment lacks {packages}; {_how(self)}{packages}"
                )
            if name == "memory_vector" and self.encoder is None:
                raise ConfigError("category 'memory_vector': --encoder is missing, the directory of all-MiniLM-L6-v2")
            scored = [entry for entry in entries if not entry.conversation][: self.entries]
            scenarios = {entry.scenario for entry in scored}
            found += [entry for entry in entries if entry.conversation and entry.scenario in scenarios] + scored
        return sorted(found, key=lambda entry: not entry.conversation)

    def _manifest(self, names: tuple[str, ...]) -> dict[str, Any]:
        policy = {"model": self.policy.model, "url": self.policy.url, "dialect": self.policy.dialect}
        return {
            "categories": names,
            "entries": self.entries,
            "policy": self.script or policy,
            "dialect": self.policy.dialect,
            "temperature": self.temperature,
            "seed": self.seed,
            "limits": self.limits.model_dump(),
        }

    async def _play(self, checkers: "Checkers", entries: "list[Entry]", verdicts: "Verdicts") -> None:
        from recall.evaluation.bfcl.official import MODEL
        from recall.evaluation.bfcl.play import Judged
        from recall.evaluation.bfcl.script import SCRIPTS, PlayedScript
        from recall.evaluation.engines import open_engine
        from recall.evaluation.kept import Kept
        from recall.types import Sampling

        kept = Kept(verdicts.path)
        async with open_engine(self.policy) as engine:
            policy, limits = engine.policy, self.limits if self.script is None else WIDE
            renderer: Any = engine.renderer  # every dialect also writes calls
            judged = Judged(
                policy=lambda entry: (
                    policy if self.script is None else PlayedScript(SCRIPTS[self.script](entry), renderer)
                ),
                renderer=renderer,
                checkers=checkers,
                limits=limits,
                sampling=Sampling(self.temperature, max_tokens=limits.max_turn_tokens),
                memory=verdicts.path / "result" / MODEL,
                kept=kept if self.save_trajectories else None,
            )
            try:
                await self._shown(judged, entries, verdicts)
            finally:
                kept.close()

    async def _shown(self, judged: "Judged", entries: "list[Entry]", verdicts: "Verdicts") -> None:
        import sys

        from rich.console import Console
        from rich.progress import Progress

        from recall.evaluation.bfcl.play import play

        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
            done = sum(entry.id in verdicts.known for entry in entries)
            bar = bars.add_task("bfcl", total=len(entries), completed=done)

            def told(verdict: "Verdict") -> None:
                verdicts.add(verdict)
                bars.advance(bar)

            await play(judged, entries, known=verdicts.known.get, told=told, seed=self.seed, at_once=self.at_once)

    async def _compared(self, interpreter: Path, results: Path, verdicts: "list[Verdict]") -> dict[str, Any]:
        """What `bfcl evaluate` says of the same results."""
        from recall.evaluation.bfcl.official import compare, evaluate

        categories = list(dict.fromkeys(verdict.category for verdict in verdicts))
        agreement = compare(verdicts, await evaluate(interpreter, results, categories))
        for name, ours, theirs in agreement.differing[:20]:
            print(f"differs: {name}: {ours or 'right'} here, {theirs or 'right'} by bfcl evaluate")
        print(f"bfcl evaluate agrees on {agreement.entries - len(agreement.differing)} of {agreement.entries} entries")
        return {"compared": agreement.entries, "differing": [name for name, _, _ in agreement.differing]}


def _how(settings: EvalBfcl) -> str:
    from recall.evaluation.bfcl.setup import default_home

    interpreter = settings.checkers or default_home() / "bin" / "python"
    return f"install with: {interpreter} -m pip install "


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from recall.evaluation.bfcl.summary import table

    console = Console()
    console.width = max(console.width, 88)  # the table's own, so that a pipe gets whole numbers too
    console.print(table(summary))
    if summary["errors"]:
        console.print("errors: " + ", ".join(f"{kind} {count}" for kind, count in summary["errors"].items()))


class CompareBfcl(Settings):
    """Put two runs of `recall eval bfcl` side by side by category, with entries that were fixed and that broke.

    Only entries that both runs played count; McNemar's exact test says whether a category differs. The last line
    printed is the result as JSON.
    """

    runs: Positional[tuple[Path, ...]]
    """The folders of the results, before and after."""
    examples: int = Field(default=2, ge=0)
    """Entries of each category that are shown of those that were fixed, and of those that broke."""
    html: Path | None = None
    """Write the comparison as a page to this file."""
    as_json: bool = Field(default=False, alias="json")
    """Print nothing but the JSON."""

    def main(self) -> int:
        """Compare, print, and write the page."""
        from rich.console import Console

        from recall.evaluation.bfcl.compare import as_json, compare, examples, read_run, table
        from recall.evaluation.bfcl.page import write_page

        if len(self.runs) != 2:
            raise ConfigError("recall eval bfcl compare: RUNS: takes two folders of results, before and after")
        found = compare(*map(read_run, self.runs))
        if self.html is not None:
            write_page(self.html, found, self.examples)
        if not self.as_json:
            console = Console()
            console.width = max(console.width, 88)
            console.print(table(found))
            for title, pairs in (("fixed", found.fixed), ("broken", found.broken)):
                print(f"{title}: {len(pairs)}")
                for old, new in examples(pairs, self.examples)[:_SHOWN]:
                    _show_example(old, new)
            for key, (before, after) in found.differing.items():
                print(f"differs: {key}: {before} | {after}")
            if found.only_one:
                print(f"left out, as only one run played them: {found.only_one}")
            if self.html is not None:
                print(f"page: {self.html}")
        print(json.dumps(as_json(found, self.examples)))
        return 0


def _show_example(old: "Verdict", new: "Verdict") -> None:
    """An entry in a few lines: what was asked last, and what each run did."""
    from recall.viewer.text import visible

    print(f"  {old.id}: {visible(' / '.join(said for said in old.asked if said))[:160]}")
    for word, verdict in (("before", old), ("after", new)):
        said = visible(json.dumps(verdict.result, ensure_ascii=False))[:160]
        print(f"    {word}: {said}" + ("" if verdict.valid else f"  [{verdict.error_type}]"))
