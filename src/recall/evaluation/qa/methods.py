"""How a question is answered: a method turns a question into an outcome, with one policy and at most one retriever.

Every turn of every method is played by `rollout`, the loop that training uses. The agents are here; what the published
tables compare them with is in `baselines.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from recall.datasets.convert import search_tasks
from recall.datasets.qa import Question
from recall.environment import Environment, Limits
from recall.policy.base import Policy
from recall.renderer import Renderer
from recall.rollout import rollout
from recall.tools.search import PUBLISHED, SearchForm
from recall.types import CallStatus, Sampling, StopReason, Task, Trajectory


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question."""

    prediction: str | None
    """The answer given; None where there is none."""
    closed: bool
    """Whether the policy ended by itself, with an answer."""
    truncated: bool
    """Whether a limit ended a turn or the episode."""
    stop: str
    """Why the last turn was the last, as a `StopReason`."""
    queries: tuple[str, ...] = ()
    """What was searched for, in order."""
    turns: int = 0
    """Turns of the policy."""
    read_tokens: int = 0
    """Tokens that it read and did not write: prompts and results."""
    sampled_tokens: int = 0
    """Tokens that it wrote."""
    duration_s: float = 0.0
    """Wall time, waiting for the engine and the retriever included."""
    fault: str | None = None
    """What of ours failed; the question is then asked anew when the run goes on."""
    texts: tuple[str, ...] = ()
    """What the policy wrote, turn by turn."""
    played: tuple[Trajectory, ...] = ()
    """The episodes that were played for it, in order."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a run."""

    question: Question
    """What is asked."""
    name: str
    """Unique in the run; goes into the names of its episodes."""
    seed: int | None = None
    """Of its sampling."""


class Method(Protocol):
    """A way to answer questions."""

    async def answer(self, ask: Ask) -> Outcome:
        """Answer one question; many are answered at the same time."""


class Agent:
    """The policy searches as often as it likes, with the search tool, and says when it is done.

    It is ReCall's method with the dialect `recall`, and ReSearch's with the dialect `research`.
    """

    def __init__(
        self,
        policy: Policy | Callable[[Question], Policy],
        renderer: Renderer,
        environment: Callable[[Task], Environment],
        limits: Limits,
        sampling: Sampling,
        *,
        top_k: int = 5,
    ) -> None:
        """Take what every question shares.

        Args:
            policy: writes the turns; or makes the policy of a question, for policies that know it beforehand.
            renderer: of the policy's model and dialect.
            environment: of a task with the search tool, native or in a sandbox that knows the service.
            limits: the budget of an episode.
            sampling: how it is sampled.
            top_k: passages of a search that names no number.
        """
        self._policy, self._renderer, self._environment = policy, renderer, environment
        self._limits, self._sampling, self._top_k = limits, sampling, top_k

    async def answer(self, ask: Ask) -> Outcome:
        """Play one episode."""
        (task,) = search_tasks([ask.question], data_source="qa", top_k=self._top_k)
        policy = self._policy(ask.question) if callable(self._policy) else self._policy
        trajectory = await rollout(
            self._environment(task),
            policy,
            self._renderer,
            task_id=ask.question.id,
            episode_id=ask.name,
            sampling=seeded(self._sampling, ask.seed),
            limits=self._limits,
        )
        queries = searches_of(trajectory, SearchForm.of(ask.question.metadata))
        return outcome_of([trajectory], trajectory.answer, queries, trajectory.duration_s, trajectory.fault)


def searches_of(trajectory: Trajectory, form: SearchForm = PUBLISHED) -> tuple[str, ...]:
    """The queries that reached the retriever."""
    return tuple(
        str(call.arguments.get(form.query, ""))
        for call in trajectory.calls
        if call.name == form.name and call.status not in (CallStatus.BAD_ARGUMENTS, CallStatus.MALFORMED)
    )


def seeded(sampling: Sampling, seed: int | None) -> Sampling:
    """The same sampling with another seed."""
    return Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, seed)


def outcome_of(
    played: Sequence[Trajectory], prediction: str | None, queries: Sequence[str], duration_s: float, fault: str | None
) -> Outcome:
    """The outcome of the episodes that were played for one question, in order."""
    segments = [segment for trajectory in played for segment in trajectory.segments]
    truncated = any(trajectory.truncated for trajectory in played)
    return Outcome(
        prediction=prediction,
        closed=prediction is not None and not truncated and fault is None,
        truncated=truncated,
        stop=played[-1].stop_reason.value if played else StopReason.FAULT.value,
        queries=tuple(queries),
        turns=sum(segment.sampled for segment in segments),
        read_tokens=sum(len(segment.token_ids) for segment in segments if not segment.sampled),
        sampled_tokens=sum(len(segment.token_ids) for segment in segments if segment.sampled),
        duration_s=duration_s,
        fault=fault,
        texts=tuple(segment.text for segment in segments if segment.sampled),
        played=tuple(played),
    )
