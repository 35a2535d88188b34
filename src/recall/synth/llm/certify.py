"""Certificates of a task: each replays the reference program in real worlds and can reject the task.

What is checked is evidence about the program and its worlds, not about any policy; `solvers.py` asks those.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recall import answers
from recall.programs import references
from recall.synth.llm.bench import Bench, Played, hash_of
from recall.synth.llm.blueprint import Blueprint, Scalar, bind, draw, exists, form_of
from recall.synth.llm.certify_world import CertificateSettings, refuse_noticed
from recall.synth.llm.errors import RejectedError
from recall.synth.llm.source import World, parameters_of
from recall.synth.llm.together import together
from recall.types import CallStatus

_GUESS_DRAWS = 5
_LEAST_PAIRS = 8
_LEAST_GUESS_WORLDS = 0.8


@dataclass(frozen=True, slots=True)
class Instance:
    """A blueprint in one world: what the question states there, and what the program comes to."""

    seed: int
    """The seed of the world."""
    anchors: Mapping[str, Scalar]
    """The values of the anchors."""
    program: Sequence[Mapping[str, Any]]
    """The program with them in it."""
    played: Played
    """What it came to."""
    answer: str
    """The answer as text; empty where the task asks for a change alone."""

    @property
    def outcome(self) -> str:
        """Answer and changes as one text, equal where both are."""
        return json.dumps([self.answer, self.played.changes], sort_keys=True)


@dataclass(frozen=True, slots=True)
class Certified:
    """A blueprint that holds."""

    blueprint: Blueprint
    """What holds."""
    instances: tuple[Instance, ...]
    """In each of the worlds that it was checked in."""
    changed: float
    """The share of counterfactual worlds that changed its answer."""
    guessed: float
    """The share of worlds in which the best guess was right."""
    shortest: int
    """Calls that every way to the answer takes at least, as far as was searched."""


class Certifier:
    """Checks the blueprints of one world."""

    def __init__(self, bench: Bench, world: World, settings: CertificateSettings, seeds: Sequence[int]) -> None:
        """Take a world whose code and tools hold.

        Args:
            bench: where programs run.
            world: with its tools.
            settings: how much is asked.
            seeds: `settings.seeds` of them for every certificate, and those after them for guesses and counterfactuals.
        """
        self.world, self.settings = world, settings
        self._bench = bench
        self.seeds, self._others = tuple(seeds[: settings.seeds]), tuple(seeds[settings.seeds :])
        self._tables: dict[int, asyncio.Task[Mapping[str, Any]]] = {}

    async def certify(self, blueprint: Blueprint, number: int) -> Certified:
        """Check a blueprint.

        Args:
            blueprint: what is checked.
            number: decides, with a world's seed, what its anchors are there.

        Raises:
            RejectedError: the first certificate that fails.
        """
        form = form_of(blueprint.program)
        if len(blueprint.calls) > self.settings.max_calls or form.depth > self.settings.max_turns:
            raise RejectedError("solvable", "too long", f"{len(blueprint.calls)} calls in {form.depth} turns")
        draws = self.settings.draws
        instances = tuple(await together(self._instance(blueprint, number, seed, draws) for seed in self.seeds))
        for instance in instances:
            _check_size(instance, self.settings.max_observation_chars)
        await self._check_needed(instances[0])
        await together(map(self._check_deterministic, instances[:2]))
        await together(self._check_unique(blueprint, instance) for instance in instances)
        changed = await self._check_counterfactual(blueprint, instances)
        guessed = await self._check_guesses(blueprint, number)
        shortest = await self._check_shortest(blueprint, instances[:2], form.depth)
        return Certified(blueprint, instances, changed, guessed, shortest)

    async def tables(self, seed: int) -> Mapping[str, Any]:
        """The world of a seed, as JSON."""
        if seed not in self._tables:
            self._tables[seed] = asyncio.get_running_loop().create_task(self._made(seed))
        return await asyncio.shield(self._tables[seed])

    async def _made(self, seed: int) -> Mapping[str, Any]:
        result = await self._bench.world(self.world, seed)
        if result.status is not CallStatus.OK:
            raise RejectedError("load", "fails", f"make_world({seed}): {result.error}")
        made: Mapping[str, Any] = result.result
        return made

    async def _instance(self, blueprint: Blueprint, number: int, seed: int, draws: int) -> Instance:
        """The blueprint in the world of a seed.

        Raises:
            RejectedError: however its anchors are drawn, its program comes to no answer.
        """
        tables = await self.tables(seed)
        generator = random.Random(f"{seed}/{number}")
        problem = "there is no row that its anchors could be drawn from"
        tried: set[str] = set()
        for _ in range(draws):
            anchors = draw(blueprint, tables, generator)
            if anchors is None or (written := json.dumps(anchors)) in tried:
                continue
            tried.add(written)
            found = await self._try(blueprint, seed, anchors)
            if isinstance(found, Instance):
                return found
            problem = found
        raise RejectedError("solvable", "the program comes to no answer", f"in the world of seed {seed}: {problem}")

    async def _try(self, blueprint: Blueprint, seed: int, anchors: Mapping[str, Scalar]) -> Instance | str:
        """The blueprint with these anchors, or why its program comes to no answer."""
        program = bind(blueprint.program, anchors)
        played = await self._bench.play(self.world, self.world.stateful(seed), program)
        if played.died:
            raise RejectedError("solvable", "a call dies", played.problem or "")
        if played.problem is not None:
            return played.problem
        if blueprint.answer_type == "none":
            return Instance(seed, anchors, program, played, "") if played.changes else "it changes nothing"
        answer = answer_text(played.answer)
        if answer is None or answers.value_of(answer, blueprint.comparison.kind) is None:
            return f"its result {json.dumps(played.answer)[:200]} does not read as {blueprint.answer_type}"
        return Instance(seed, anchors, program, played, answer)

    async def _check_needed(self, instance: Instance) -> None:
        """Every call's result is used later, or is the answer, or the call changes something."""
        used = {index for item in instance.program for index in references(item.get("arguments", item.get("value")))}
        calls = [number for number, item in enumerate(instance.program[:-1]) if "name" in item]
        unused = [number for number in calls if number not in used]
        if not unused:
            return
        source = self.world.stateful(instance.seed)
        watched = await self._bench.play(self.world, source, instance.program, watch=True)
        for number in unused:
            if number not in watched.changing:
                detail = f"nothing uses item {number}, {instance.program[number]['name']}"
                raise RejectedError("minimal", "a call is not needed", detail)

    async def _check_deterministic(self, instance: Instance) -> None:
        """The same in a process with other chance, traced, and in one with other hashes."""
        source = self.world.stateful(instance.seed, traced=True)
        again = await self._bench.play(self.world, source, instance.program, chance=1)
        refuse_noticed(again.noticed)
        if again.values != instance.played.values or again.changes != instance.played.changes:
            raise RejectedError("deterministic", "another result in another process", again.problem or "")
        calls = instance.played.arguments
        elsewhere = await self._bench.elsewhere(self.world.source(instance.seed), calls)
        results = [
            value for value, item in zip(instance.played.values, instance.program, strict=True) if "name" in item
        ]
        if elsewhere != [hash_of(await self.tables(instance.seed)), *map(hash_of, results)]:
            detail = elsewhere if isinstance(elsewhere, str) else "the order of sets, or hash(), shows in a result"
            raise RejectedError("deterministic", "another result in another process", detail)

    async def _check_unique(self, blueprint: Blueprint, instance: Instance) -> None:
        """The same answer whatever the order of rows."""
        for shuffle in (1, 2):
            source = self.world.stateful(instance.seed, shuffle=shuffle)
            mixed = await self._bench.play(self.world, source, instance.program)
            same = mixed.problem is None and (blueprint.answer_type == "none" or self._same(blueprint, mixed, instance))
            if not same or mixed.changes != instance.played.changes:
                shown = mixed.problem or json.dumps(mixed.answer)[:100]
                detail = f"{instance.answer!r} becomes {shown} when rows are shuffled"
                raise RejectedError("unique", "the order of rows decides", detail)

    def _same(self, blueprint: Blueprint, played: Played, instance: Instance) -> bool:
        text = answer_text(played.answer)
        return text is not None and answers.equal(text, [instance.answer], blueprint.comparison)

    async def _check_counterfactual(self, blueprint: Blueprint, instances: Sequence[Instance]) -> float:
        """Another answer to the same question in other worlds."""
        others = self._others[: self.settings.counterfactual_worlds]
        pairs = [(instance, seed) for instance in instances for seed in others]
        changed = [each for each in await together(self._asked_in(blueprint, *pair) for pair in pairs) if each]
        if len(changed) < _LEAST_PAIRS:
            raise RejectedError(
                "counterfactual",
                "cannot be asked in other worlds",
                f"only in {len(changed)} of {len(pairs)} cases the anchors exist and the program comes to an answer; "
                "names and ids that questions state must be the same for every seed",
            )
        share = sum(found == "changed" for found in changed) / len(changed)
        if share < self.settings.least_changed:
            detail = f"{share:.0%} of {len(changed)} other worlds change it; at least {self.settings.least_changed:.0%}"
            raise RejectedError("counterfactual", "the answer stays the same", detail)
        return share

    async def _asked_in(self, blueprint: Blueprint, instance: Instance, seed: int) -> str:
        """`changed` or `same`; empty where the question cannot be asked there."""
        if not exists(blueprint, instance.anchors, await self.tables(seed)):
            return ""
        found = await self._try(blueprint, seed, instance.anchors)
        if isinstance(found, str):
            return ""
        same = found.played.changes == instance.played.changes and (
            blueprint.answer_type == "none" or self._same(blueprint, found.played, instance)
        )
        return "same" if same else "changed"

    async def _check_guesses(self, blueprint: Blueprint, number: int) -> float:
        """Constants and copies of single results are right in few worlds."""
        seeds = self._others[: self.settings.guess_worlds]
        outcomes = await together(self._instance_or_none(blueprint, number, seed) for seed in seeds)
        found = [outcome for outcome in outcomes if outcome is not None]
        if len(found) < _LEAST_GUESS_WORLDS * len(seeds):
            detail = f"its program comes to an answer in {len(found)} of {len(seeds)} worlds"
            raise RejectedError("solvable", "not in most worlds", detail)
        most = 0.0
        for name, right in _guesses(found, blueprint):
            share = right / len(found)
            if share > self.settings.most_guessed:
                detail = f"{name} is right in {share:.0%} of {len(found)} worlds"
                raise RejectedError("guess", name.partition(" ")[0], detail)
            most = max(most, share)
        return most

    async def _instance_or_none(self, blueprint: Blueprint, number: int, seed: int) -> Instance | None:
        try:
            return await self._instance(blueprint, number, seed, _GUESS_DRAWS)
        except RejectedError:
            return None

    async def _check_shortest(self, blueprint: Blueprint, instances: Sequence[Instance], depth: int) -> int:
        """No fewer rounds of calls show the answer. What was not searched wholly is not claimed."""
        if blueprint.answer_type == "none" or depth < 2 or not self.settings.search_calls:
            return 1
        found = await together(self._searched(instance, depth - 1) for instance in instances)
        if all(each["found"] is not None for each in found):
            detail = f"{found[0]['call']} shows the answer in round {found[0]['found']}, of {depth} of the program"
            raise RejectedError("minimal", "there is a shorter way", detail)
        done: int = min(each["done"] for each in found)
        return 1 + done

    async def _searched(self, instance: Instance, levels: int) -> dict[str, Any]:
        known = [*instance.anchors.values(), *program_literals(instance.program)]
        arguments = {
            "parameters": parameters_of(self.world.tools),
            "known": list({json.dumps(value): value for value in known}.values()),
            "answer": instance.played.answer,
            "levels": levels,
            "most_calls": self.settings.search_calls,
        }
        result = await self._bench.search(self.world, instance.seed, arguments)
        match result.result:
            case {"found": int() | None as found, "call": str() as call, "done": int() as done}:
                return {"found": found, "call": call, "done": done}
        return {"found": None, "call": "", "done": 0}


def answer_text(value: Any) -> str | None:
    """A result as the text of an answer; None where it is no answer: nothing, empty, or an object."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, Mapping) or value == []:
        return None
    if isinstance(value, list) and any(isinstance(item, Mapping | list) or item is None for item in value):
        return None
    return json.dumps(value, ensure_ascii=False)


def literals_of(expression: Any) -> Iterator[Scalar]:
    """The scalars that an expression states itself."""
    if isinstance(expression, Mapping):
        if "$ref" in expression:
            return
        for value in [expression.get("of", ())] if "$op" in expression else expression.values():
            yield from literals_of(value)
    elif isinstance(expression, list | tuple):
        for value in expression:
            yield from literals_of(value)
    elif expression is not None:
        yield expression


def program_literals(program: Sequence[Mapping[str, Any]]) -> list[Scalar]:
    """The scalars that the items of a program state themselves."""
    return [literal for item in program for literal in literals_of(item.get("arguments", item.get("value")))]


def _check_size(instance: Instance, most: int) -> None:
    for (name, _), text in zip(instance.played.arguments, instance.played.observations, strict=True):
        if len(text) > most:
            raise RejectedError("size", "a result is too long", f"{name} returns {len(text)} characters, of {most}")


def _guesses(found: Sequence[Instance], blueprint: Blueprint) -> Iterator[tuple[str, int]]:
    """Ways to guess, by name, and in how many worlds each is right.

    They are one answer for all worlds, what the question states, what a first call returns, and what the last
    observation before the answer says.
    """
    yield "constant answer", Counter(instance.outcome for instance in found).most_common(1)[0][1]
    if blueprint.answer_type == "none":
        return
    for name in blueprint.anchors:
        yield f"echo of {name!r}", sum(_is(instance, instance.anchors[name], blueprint) for instance in found)
    if len(blueprint.calls) < 2:
        return
    calls = [number for number, item in enumerate(blueprint.program) if "name" in item]
    first = [number for number in calls if not list(references(blueprint.program[number]["arguments"]))]
    last = calls[-1] if len(blueprint.program) - 1 > calls[-1] else calls[-2]
    for number in dict.fromkeys([*first, last]):
        right = sum(_is(instance, instance.played.values[number], blueprint) for instance in found)
        yield f"copy of the result of item {number}", right


def _is(instance: Instance, guess: Any, blueprint: Blueprint) -> bool:
    """Whether a value, or the only value of an object of one key, is the answer."""
    if isinstance(guess, Mapping) and len(guess) == 1:
        (guess,) = guess.values()
    text = answer_text(guess)
    return text is not None and answers.equal(text, [instance.answer], blueprint.comparison)


def occurs(value: Scalar, text: str) -> bool:
    """Whether a text states a value: a word or words of it, or a number, with or without thousands commas."""
    if isinstance(value, bool):
        return False
    forms = {str(value)}
    if isinstance(value, int | float):
        forms |= {f"{value:,}", f"{value:g}"} | ({str(int(value))} if value == int(value) else set())
    return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text, re.IGNORECASE) for form in forms if form)
