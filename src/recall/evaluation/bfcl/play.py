"""Play entries of the leaderboard with a policy, have each judged by the official checkers, and say what came of it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.bfcl.checkers import Checkers
from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.environment import BfclEnvironment, Played
from recall.evaluation.bfcl.judge import judge
from recall.evaluation.kept import Kept
from recall.evaluation.play import seed_of
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rollout import rollout
from recall.types import CallStatus, Group, RewardResult, Sampling, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one entry."""

    id: str
    """Of the entry."""
    category: str
    """Its category."""
    valid: bool
    """Whether the checkers accept it."""
    error_type: str = ""
    """The leaderboard's word for what is wrong."""
    message: str = ""
    """What is wrong, in the checkers' words."""
    asked: tuple[str, ...] = ()
    """By user turn, what was said last before the policy's turn."""
    result: Any = None
    """By user turn and by step: calls as `[{name: arguments}]`, or words."""
    turns: int = 0
    """Turns of the policy."""
    calls: int = 0
    """Calls, malformed ones included."""
    malformed: int = 0
    """Calls that could not be parsed."""
    sampled_tokens: int = 0
    """Tokens that the policy wrote."""
    duration_s: float = 0.0
    """Wall time of the episode."""
    fault: str | None = None
    """What of ours failed; the entry is then played anew when the run goes on."""

    def row(self) -> dict[str, Any]:
        """As JSON says it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """Plays entries and has them judged."""

    policy: Callable[[Entry], Policy]
    """Samples the turns of an entry's episode."""
    renderer: Renderer
    """Of the policy's model."""
    checkers: Checkers
    """Judge, and run the backends."""
    limits: Limits
    """The budget of an episode."""
    sampling: Sampling
    """How turns are sampled."""
    memory: Path = Path()
    """The folder where what memories hold is kept between entries."""
    kept: Kept | None = None
    """Takes the episode behind each verdict."""

    async def entry(self, entry: Entry, place: int, *, seed: int = 0) -> Verdict:
        """Play one entry.

        Args:
            entry: what to play.
            place: its place in the run, which decides its seed.
            seed: of the run.
        """
        env = BfclEnvironment(entry, self.checkers, entry.id, self.limits, memory=self.memory)
        tokens = len(self.renderer.prompt(entry.turns[0], env.tools))
        if tokens >= self.limits.max_tokens:  # as on the leaderboard, where a server would refuse it
            played = Played([] if entry.classes else [[""]])
            verdict = await judge(entry, played, self.checkers)
            told = f"the prompt has {tokens} tokens, and limits.max_tokens is {self.limits.max_tokens}"
            return Verdict(
                entry.id, entry.category, **{**verdict, "message": told}, asked=_asked(entry), result=played.turns
            )
        trajectory = await rollout(
            env,
            self.policy(entry),
            self.renderer,
            task_id=entry.id,
            episode_id=entry.id,
            sampling=replace(self.sampling, seed=seed_of(seed, place)),
            limits=self.limits,
        )
        played = _recorded(env.played, entry, trajectory)
        verdict = await judge(entry, played, self.checkers)
        if self.kept is not None:
            task = Task(entry.id, "\n".join(_asked(entry)), (), "", env.tools, data_source="bfcl", kind=entry.category)
            reward = RewardResult(float(verdict["valid"]), bool(verdict["valid"]))
            self.kept.add(entry.category, Group(task, [trajectory], [reward]))
        return Verdict(
            id=entry.id,
            category=entry.category,
            valid=verdict["valid"],
            error_type=verdict.get("error_type", ""),
            message=verdict.get("message", ""),
            asked=_asked(entry),
            result=played.turns,
            turns=trajectory.turns,
            calls=len(trajectory.calls),
            malformed=sum(call.status is CallStatus.MALFORMED for call in trajectory.calls),
            sampled_tokens=sum(len(each.token_ids) for each in trajectory.segments if each.sampled),
            duration_s=round(trajectory.duration_s, 4),
            fault=trajectory.fault,
        )


def _asked(entry: Entry) -> tuple[str, ...]:
    return tuple(said[-1].content if said else "" for said in entry.turns)


def _recorded(played: Played, entry: Entry, trajectory: Trajectory) -> Played:
    """What is judged: an episode that a limit of ours cut short is recorded without its unfinished turn.

    The turn of a single-turn entry stays, with the words that were cut.
    """
    if played.finished:
        return played
    if entry.classes:
        return Played(played.turns[:-1])
    words = trajectory.segments[-1].text if trajectory.turns else ""
    return Played([[words]])


async def play(
    judged: Judged,
    entries: Sequence[Entry],
    *,
    known: Callable[[str], Verdict | None],
    told: Callable[[Verdict], None],
    seed: int = 0,
    at_once: int = 32,
) -> None:
    """Play the entries that are not done yet.

    An entry that depends on another waits for it; where that one failed for a reason of ours, so does this one.

    Args:
        judged: plays one.
        entries: all entries of the run, each after those that it depends on; the place of one decides its seed,
            whichever of them are done already.
        known: the verdict on an entry that is done, by its id.
        told: called with each verdict when it is there.
        seed: of the run.
        at_once: entries under way at the same time.

    Raises:
        ConfigError: an entry cannot be played with these settings; those under way are cancelled.
    """
    waiting = iter([(place, entry) for place, entry in enumerate(entries) if known(entry.id) is None])
    over = {entry.id: asyncio.Event() for entry in entries if known(entry.id) is None}

    async def work() -> None:
        for place, entry in waiting:
            for other in entry.after:
                if other in over:
                    await over[other].wait()
            missing = [other for other in entry.after if known(other) is None]
            if missing:
                told(Verdict(entry.id, entry.category, False, fault=f"{missing[0]}, which comes before, failed"))
            else:
                told(await judged.entry(entry, place, seed=seed))
            over[entry.id].set()

    refusal: ConfigError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except* ConfigError as refused:
        refusal = next(error for error in refused.exceptions if isinstance(error, ConfigError))
    if refusal is not None:  # one line for the user instead of a group of them
        raise refusal
