"""Makes worlds one after another, many at once, until there are rows enough: from a topic to judged tasks.

A world's number decides its topic and its seeds. Nothing here depends on which world is finished first, but for one
thing, which is waited for: whether a setting is too much like that of a world before it.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from recall.errors import ConfigError
from recall.synth.llm.author import Asked, Author, Log, Setting
from recall.synth.llm.bench import Bench
from recall.synth.llm.certify import Certified, Certifier
from recall.synth.llm.errors import RejectedError, SpentError
from recall.synth.llm.journal import Candidate, Journal
from recall.synth.llm.questions import check_instance
from recall.synth.llm.recipe import LLMRecipe
from recall.synth.llm.rows import split_of, task_of, without_unused
from recall.synth.llm.solvers import Solvers
from recall.synth.llm.source import World
from recall.synth.llm.together import together
from recall.synth.llm.topics import Novelty, Topic, topic

_SEEDS = 10_000_000
_REFUSED = 3
"""So many worlds in a row whose first request is refused are the user's error, not the worlds'."""

Watch = Callable[[int, int], None]
"""Told, after each world, how many are finished and how many rows there are."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every world is made with."""

    author: Author
    """Writes."""
    bench: Bench
    """Tries."""
    solvers: Solvers
    """Judge."""
    recipe: LLMRecipe
    """Says how."""
    seed: int
    """Decides topics and seeds."""


class Pipeline:
    """Makes the worlds of one set, as far as they are not made yet."""

    def __init__(self, workshop: Workshop, journal: Journal, *, at_once: int, on_world: Watch | None = None) -> None:
        """Take what worlds are made with.

        Args:
            workshop: makes them.
            journal: knows what is made already, and is told the rest.
            at_once: worlds under way at once.
            on_world: told after each world.
        """
        self._workshop, self._journal, self._at_once, self._on_world = workshop, journal, at_once, on_world
        self._novelty = Novelty()
        for setting in journal.settings():
            self._novelty.add(setting)
        self._settled: dict[int, asyncio.Event] = {}
        self._refused = 0
        self._barren = 0

    async def run(self, wanted: dict[str, int], most_worlds: int, most_barren: int) -> str:
        """Make worlds until there are as many rows of each split as wanted, or no more may be made.

        Args:
            wanted: rows of each split.
            most_worlds: worlds that are made at most, over all runs.
            most_barren: worlds that give no row, one after the other, after which none is begun.

        Returns:
            Why it ended, in words; empty where there are rows enough.

        Raises:
            ConfigError: the endpoint accepts nothing that is asked of it.
            RolloutError: the endpoint or the sandbox failed; what is finished is kept.
        """
        numbers = iter(range(most_worlds))
        running: set[asyncio.Task[None]] = set()
        spent = ""
        try:
            while True:
                while not spent and len(running) < min(self._at_once, self._lacking(wanted)):
                    number = next(numbers, None)
                    if number is None:
                        break
                    self._settled[number] = asyncio.Event()
                    if number in self._journal:
                        self._settled[number].set()
                    else:
                        running.add(asyncio.create_task(self._make(number)))
                if not running:
                    break
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    fault = task.exception()
                    if isinstance(fault, SpentError):
                        spent = str(fault)
                    elif fault is None and self._barren >= most_barren:
                        spent = f"{self._barren} worlds one after the other gave no row"
                    elif fault is not None:
                        raise fault
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if not self._lacking(wanted):
            return ""
        return spent or f"{most_worlds} worlds are made"

    def _lacking(self, wanted: dict[str, int]) -> int:
        """How many more worlds are needed, as those that are finished let expect; 0 where there are rows enough."""
        rows = self._journal.finished_rows()
        missing = {split: count - rows[split] for split, count in wanted.items() if count > rows[split]}
        if not missing:
            return 0
        total = sum(wanted.values())
        usual = rows.total() / len(self._journal) if len(self._journal) else self._workshop.recipe.author.tasks / 2
        # A split gets its share of worlds only, so a small one may need more of them than a large one.
        return math.ceil(max(count * total / wanted[split] for split, count in missing.items()) / max(usual, 0.25))

    async def _make(self, number: int) -> None:
        """Make one world, and keep what came of it."""
        place = topic(self._workshop.seed, number)
        log = Log()
        facts: dict[str, object] = {"topic": asdict(place)}
        setting: Setting | None = None
        rows: Sequence[Candidate]
        try:
            setting = await self._setting(place, number, log)
            facts["title"] = setting.title
            rows = await self._rows(setting, place, number, log, facts)
        except RejectedError as problem:
            rows = [Candidate.rejected(problem)]
            facts |= {"gate": problem.gate, "reason": problem.reason, "detail": problem.detail}
        new = setting.text if setting is not None else ""
        self._journal.add(number, facts, new, log.entries, rows)
        self._barren = 0 if any(row.task is not None for row in rows) else self._barren + 1
        if self._on_world is not None:
            self._on_world(len(self._journal), self._journal.finished_rows().total())

    async def _setting(self, place: Topic, number: int, log: Log) -> Setting:
        """A setting that is not too much like those of the worlds before.

        Raises:
            RejectedError: there is none.
            ConfigError: the endpoint refuses one world after the other.
        """
        try:
            setting: Setting | None = None
            problem: RejectedError | None = None
            try:
                setting = await self._workshop.author.setting(place, number, log)
            except RejectedError as fault:
                problem = fault
            if number:
                await self._settled[number - 1].wait()
            self._count_refusal(problem)
            if problem is not None:
                raise problem
            assert setting is not None
            likeness = self._novelty.likeness(setting.text)
            if likeness > self._workshop.recipe.max_likeness:
                found = RejectedError("novelty", "too much like an earlier setting", f"{likeness:.2f}")
                log.reject("setting", "", found)
                raise found
            self._novelty.add(setting.text)
            return setting
        finally:
            self._settled[number].set()

    def _count_refusal(self, problem: RejectedError | None) -> None:
        self._refused = self._refused + 1 if problem is not None and problem.gate == "endpoint" else 0
        if problem is not None and self._refused == _REFUSED:
            raise ConfigError(problem.detail)

    async def _rows(
        self, setting: Setting, place: Topic, number: int, log: Log, facts: dict[str, object]
    ) -> list[Candidate]:
        """The candidates for rows that a world gives.

        Raises:
            RejectedError: it gives none.
        """
        shop = self._workshop
        certificates = shop.recipe.certificates
        count = certificates.seeds + max(certificates.guess_worlds, certificates.counterfactual_worlds)
        seeds = random.Random(f"{shop.seed}/world/{number}").sample(range(1, _SEEDS), count)
        world = await shop.author.world(setting, number, seeds[: certificates.seeds], log)
        split = split_of(world.schema.shape, shop.recipe.shares)
        facts |= {"split": split, "shape": world.schema.shape, "tools": [tool.name for tool in world.tools]}
        certifier = Certifier(shop.bench, world, certificates, seeds)
        held = await shop.author.tasks(setting, world, certifier, number, log)
        outcomes = await together(self._phrased(setting, world, each, number, log) for each in held)
        asked = [(index, outcome) for index, outcome in enumerate(outcomes) if isinstance(outcome, Asked)]
        candidates = [outcome for outcome in outcomes if isinstance(outcome, Candidate)]
        told = without_unused(world, [task for _, task in asked])
        judged = await together(
            self._row(told, task, split, place, (number, index, variant), log)
            for index, task in asked
            for variant in range(shop.recipe.variants)
        )
        return candidates + judged

    async def _phrased(
        self, setting: Setting, world: World, certified: Certified, number: int, log: Log
    ) -> Asked | Candidate:
        try:
            return await self._workshop.author.phrasings(setting, world, certified, number, log)
        except RejectedError as problem:
            return Candidate.rejected(problem)

    async def _row(
        self, world: World, asked: Asked, split: str, topic: Topic, place: tuple[int, int, int], log: Log
    ) -> Candidate:
        """One task in one world, judged by the solvers."""
        number, index, variant = place
        blueprint, instance = asked.certified.blueprint, asked.certified.instances[variant]
        task = task_of(world, asked, instance, topic=topic, split=split, place=(self._workshop.seed, number, index))
        try:
            check_instance(task.question, instance, blueprint)
            await self._workshop.solvers.judge(task, log)
        except RejectedError as problem:
            log.reject("row", "", problem, task=task.id)
            return Candidate.rejected(problem)
        log.accept("row", "", task=task.id)
        return Candidate(task)
