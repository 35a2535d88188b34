"""Play entries of the leaderboard with a policy, have each judged by the official checkers, and say what came of it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.bfcl.checkers import Checkers
from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.environment import BfclEnvironment, Played
from recall.evaluation.bfcl.functions import as_ast
from recall.evaluation.play import seed_of
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rollout import rollout
from recall.types import CallStatus, Sampling, StopReason, Trajectory


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
    result: Any = None
    """What was called: by turn and step as code, or as a list of `{name: arguments}`."""
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

    async def entry(self, entry: Entry, place: int, *, seed: int = 0) -> Verdict:
        """Play one entry.

        Args:
            entry: what to play.
            place: its place in the run, which decides its seed.
            seed: of the run.
        """
        env = BfclEnvironment(entry, self.checkers, entry.id, self.limits)
        sampling = Sampling(
            self.sampling.temperature, self.sampling.top_p, self.sampling.max_tokens, seed_of(seed, place)
        )
        trajectory = await rollout(
            env,
            self.policy(entry),
            self.renderer,
            task_id=entry.id,
            episode_id=entry.id,
            sampling=sampling,
            limits=self.limits,
        )
        verdict = await self._judge(entry, env.played, trajectory)
        single = as_ast(env.played.calls, entry.functions)
        return Verdict(
            id=entry.id,
            category=entry.category,
            valid=verdict["valid"],
            error_type=verdict.get("error_type", ""),
            message=verdict.get("message", ""),
            result=env.played.turns if entry.sort == "multi_turn" else single,
            turns=trajectory.turns,
            calls=len(trajectory.calls),
            malformed=sum(call.status is CallStatus.MALFORMED for call in trajectory.calls),
            sampled_tokens=sum(trajectory.mask),
            duration_s=round(trajectory.duration_s, 4),
            fault=trajectory.fault,
        )

    async def _judge(self, entry: Entry, played: Played, trajectory: Trajectory) -> dict[str, Any]:
        if entry.sort == "multi_turn":
            # An episode that a limit cut short has fewer turns than the leaderboard wants, or was given up.
            ended = trajectory.stop_reason is StopReason.DONE and not played.given_up
            if not ended:
                told = f"the episode ended with {trajectory.stop_reason.value} in turn {len(played.turns)}"
                return {"valid": False, "error_type": "multi_turn:force_terminated", "message": told}
            return await self.checkers.check_turns(entry, played.turns)
        calls = as_ast(played.calls, entry.functions)
        if entry.sort == "relevance":
            wanted = entry.category == "live_relevance"
            if bool(calls) is wanted:
                return {"valid": True}
            kind = "relevance_error:decoder_failed" if wanted else "irrelevance_error:decoder_success"
            return {"valid": False, "error_type": kind, "message": "no call" if wanted else "a call"}
        if not calls:
            return {"valid": False, "error_type": "ast_decoder:decoder_failed", "message": "no call"}
        return await self.checkers.check_calls(entry, calls)


async def play(
    judged: Judged,
    entries: Sequence[Entry],
    *,
    done: Callable[[Entry], bool],
    told: Callable[[Verdict], None],
    seed: int = 0,
    at_once: int = 32,
) -> None:
    """Play the entries that are not done yet.

    Args:
        judged: plays one.
        entries: all entries of the run; the place of one decides its seed, whichever of them are done already.
        done: whether an entry has its verdict.
        told: called with each verdict when it is there.
        seed: of the run.
        at_once: entries under way at the same time.

    Raises:
        ConfigError: an entry cannot be played with these settings; those under way are cancelled.
    """
    waiting = iter([(place, entry) for place, entry in enumerate(entries) if not done(entry)])

    async def work() -> None:
        for place, entry in waiting:
            told(await judged.entry(entry, place, seed=seed))

    refusal: ConfigError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
    except* ConfigError as refused:
        refusal = next(error for error in refused.exceptions if isinstance(error, ConfigError))
    if refusal is not None:  # one line for the user instead of a group of them
        raise refusal
