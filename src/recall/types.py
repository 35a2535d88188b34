"""The words of the house: tasks, turns, segments, trajectories, groups. Plain frozen data, no behaviour beyond views.

Notation: `_T` counts tokens of a trajectory, `_G` trajectories of a group; `_s` is seconds; log-probabilities are nats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the policy wrote and the parser understood."""

    name: str
    """The tool's name as written; it may be unknown."""
    arguments: Mapping[str, Any]
    """The decoded JSON object of arguments."""
    id: str = field(default="", compare=False)
    """What the model called the call, in a format where it does; its result is shown under the same id."""
    texts: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The arguments as written, in a format that writes them without their types; `tool_calls.typed` reads them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message that the environment shows to the policy."""

    role: Role
    """Who speaks. Results of tools have the role `tool`; the renderer decides where they go."""
    content: str
    """The text, unescaped; the renderer makes sure that it cannot become a control token."""
    name: str = ""
    """Of a result: the tool that was called, for chat templates that show it."""
    call_id: str = ""
    """Of a result: the id of its call, where the call has one."""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message, in a history that came from outside: the calls it made."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the policy is told about one tool."""

    name: str
    """The name to call it by."""
    description: str
    """What it does, for the model."""
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments: `{"type": "object", "properties": …, "required": […]}`."""


@dataclass(frozen=True, slots=True)
class MalformedCall:
    """A call that the policy wrote and the parser could not understand. A value, never an exception."""

    text: str
    """What stood between the tags."""
    problem: str
    """What is wrong with it, told to the model."""


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What one sampled turn says."""

    text: str
    """The whole turn, decoded."""
    thinking: str = ""
    """What stood between `<think>` and `</think>`."""
    calls: tuple[ToolCall | MalformedCall, ...] = ()
    """The calls, in the order written."""
    answer: str | None = None
    """The content of the last `\\boxed{}` outside thinking and calls; None when there is none."""
    content: str = ""
    """What is said outside thinking and calls, without the space around it."""


AnswerKind = Literal["text", "number", "integer", "boolean", "date", "entity", "list", "set", "sequence"]


@dataclass(frozen=True, slots=True)
class AnswerType:
    """How an answer is compared with the ground truth."""

    kind: AnswerKind = "text"
    """`text` compares normalised strings, `entity` a name or code letter by letter; the others compare values: a `list`
    in any order with its repeats, a `set` in any order without them, a `sequence` in order."""
    tolerance: float = 0.0
    """For `number`: the largest absolute difference that still counts as equal."""


@dataclass(frozen=True, slots=True)
class Task:
    """A question, its accepted answers, and the tools it may use."""

    id: str
    """Unique within its dataset."""
    question: str
    """The user's turn."""
    ground_truth: tuple[str, ...]
    """The accepted answers; any one of them is right. Empty when the task is about state alone."""
    env: str = ""
    """Python source that defines the tools; it runs in the sandbox only."""
    tools: tuple[ToolSpec, ...] = ()
    """The tools that the policy is told about, each the name of a function in `env`."""
    answer_type: AnswerType = AnswerType()
    """How the answer is compared."""
    data_source: str = ""
    """Where the task comes from (`data_source` of the row)."""
    ability: str = "re_call"
    """`ability` of the row."""
    split: str = ""
    """The split it belongs to, such as `train` or `held_out`; metrics are reported by it."""
    depth: int = 0
    """The number of calls of the reference program; 0 when unknown."""
    max_calls: int | None = None
    """The calls that an episode may make, where that is fewer than the limits of whoever plays it allow; None leaves it
    to them."""
    kind: str = ""
    """The kind of task within its source, such as `chain` or `join`; metrics are reported by it."""
    reference: tuple[Mapping[str, Any], ...] = ()
    """The reference program: calls `{"name", "arguments"}`, and values `{"value": …}` that the policy works out itself;
    within both, `{"$ref": i}` is the result of item i. The answer is the value of the last item."""
    changes: Mapping[str, Any] | None = None
    """The changes that the episode must leave behind, by path, and no others; None when the task is not about state.
    A path is like `orders/O17/status`; a created row stands under its own path, a deleted one as None under its."""
    reward: str = ""
    """The reward that the row asks for, where the recipe leaves it to the row; empty when the row asks for none."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the row carried, kept as it was."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a policy samples one turn."""

    temperature: float = 1.0
    """0 is greedy; otherwise logits are divided by it."""
    top_p: float = 1.0
    """The smallest set of tokens with at least this probability is sampled from."""
    max_tokens: int = 1024
    """At most so many tokens, the stop token included."""
    seed: int | None = None
    """Makes the turn a function of weights, prompt and seed; None draws from the policy's own stream."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")

    def within(self, room: int, turn: int = 0) -> "Sampling":
        """The same sampling with at most `room` tokens, and the seed of the turn numbered `turn`."""
        seed = None if self.seed is None else (self.seed * 1_000_003 + turn) & (2**63 - 1)
        return replace(self, max_tokens=min(self.max_tokens, room), seed=seed)


@dataclass(frozen=True, slots=True)
class Completion:
    """One turn as a policy sampled it."""

    token_ids: tuple[int, ...]
    """[n] what was sampled, the stop token included."""
    logprobs: tuple[float, ...]
    """[n] nats of the sampled ids at the sampling temperature, before top-p."""
    finish_reason: Literal["stop", "length"]
    """`stop`: the policy ended its turn. `length`: it ran into `max_tokens`."""
    policy_version: int = 0
    """The number of updates behind the weights that sampled it."""
    from_text: bool = False
    """Whether the engine returned text only, so that the ids are this side's reading and there are no logprobs. Such
    a turn can be measured and never learned from."""

    def __post_init__(self) -> None:
        if len(self.logprobs) != len(self.token_ids):
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.token_ids)} tokens")


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens with one author: the policy, or the environment."""

    token_ids: tuple[int, ...]
    """[n] vocabulary ids, exactly as the engine saw or sampled them."""
    logprobs: tuple[float, ...] | None = None
    """[n] nats under the sampling policy; None when the environment wrote the tokens."""
    text: str = ""
    """The tokens decoded, for people and rewards; never encoded again."""
    policy_version: int | None = None
    """The version of the weights that sampled the segment; None for the environment's."""
    from_text: bool = False
    """Whether the ids of a sampled segment are this side's reading of text; see `Completion.from_text`."""
    entropies: tuple[float, ...] | None = None
    """[n] nats of the learner's distribution at each sampled token; None where no learner looked at it."""
    learner_logprobs: tuple[float, ...] | None = None
    """[n] nats of the same ids under the learner when it first looked at them; None where it did not. The importance
    ratio of a token is exp(learner's - sampler's)."""

    def __post_init__(self) -> None:
        for name in ("logprobs", "entropies", "learner_logprobs"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.token_ids):
                raise ValueError(f"{len(values)} {name} for {len(self.token_ids)} tokens")

    @property
    def sampled(self) -> bool:
        """Whether the policy wrote it."""
        return self.logprobs is not None


class CallStatus(StrEnum):
    """How a tool call ended."""

    OK = "ok"
    MALFORMED = "malformed"
    UNKNOWN_TOOL = "unknown_tool"
    BAD_ARGUMENTS = "bad_arguments"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    STATE_LOST = "state_lost"
    OVER_LIMIT = "over_limit"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One tool call of an episode: what was asked, what came back, how long it took."""

    turn: int
    """The turn that wrote it, from 0."""
    name: str
    """The tool's name as written; empty for a malformed call."""
    arguments: Mapping[str, Any]
    """The arguments as written; empty for a malformed call."""
    result: str
    """What the model was shown."""
    status: CallStatus
    """How the call ended."""
    duration_s: float = 0.0
    """Wall time of the call, queueing included."""


class StopReason(StrEnum):
    """Why an episode ended."""

    DONE = "done"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    MAX_CALLS = "max_calls"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Step:
    """What the environment answers to a turn."""

    messages: tuple[Message, ...] = ()
    """What the policy reads next; empty when the episode is over."""
    records: tuple[CallRecord, ...] = ()
    """The calls that the turn made, in order."""
    stop: StopReason | None = None
    """Why the episode is over; None when it goes on."""
    changes: Mapping[str, Any] | None = None
    """What the episode changed, by path, at its end; None when the task does not ask or the state is lost."""


@dataclass(frozen=True)
class Trajectory:
    """One episode as it was played."""

    task_id: str
    """The task that was played."""
    segments: tuple[Segment, ...]
    """Prompt first, then sampled turns and replies by turns."""
    stop_reason: StopReason
    """Why it ended."""
    answer: str | None = None
    """The answer of the last turn, if it gave one."""
    calls: tuple[CallRecord, ...] = ()
    """Every tool call, in order."""
    fault: str | None = None
    """What of ours failed; such a trajectory is left out of the gradient."""
    duration_s: float = 0.0
    """Wall time of the episode."""
    seed: int | None = None
    """The seed that it was sampled with."""
    changes: Mapping[str, Any] | None = None
    """What it changed, by path; None when the task does not ask, a limit ended it, or the state was lost."""

    @cached_property
    def token_ids(self) -> list[int]:
        """[T] all tokens in order."""
        return [token for segment in self.segments for token in segment.token_ids]

    @cached_property
    def mask(self) -> list[bool]:
        """[T] True where the policy wrote the token."""
        return [segment.sampled for segment in self.segments for _ in segment.token_ids]

    @cached_property
    def logprobs(self) -> list[float]:
        """[T] nats of the sampled tokens; 0.0 where the environment wrote the token."""
        return [value for segment in self.segments for value in (segment.logprobs or (0.0,) * len(segment.token_ids))]

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The first segment: what the policy saw before it wrote anything."""
        return self.segments[0].token_ids if self.segments else ()

    @property
    def turns(self) -> int:
        """How many turns the policy took."""
        return sum(segment.sampled for segment in self.segments)

    @property
    def from_text(self) -> bool:
        """Whether a turn of it came as text only, so that it must not be learned from."""
        return any(segment.from_text for segment in self.segments)

    @property
    def truncated(self) -> bool:
        """Whether a limit ended it, rather than the policy."""
        return self.stop_reason in (
            StopReason.MAX_TURNS,
            StopReason.MAX_TOKENS,
            StopReason.MAX_CALLS,
            StopReason.TIMEOUT,
        )


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What a reward says of a trajectory."""

    score: float
    """The number that is learned from."""
    correct: bool
    """Whether the task was solved; what success rates count."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named contributions and facts, for metrics and for people."""


@dataclass(frozen=True, slots=True)
class Group:
    """The trajectories of one task, with their rewards."""

    task: Task
    """The task they share."""
    trajectories: Sequence[Trajectory]
    """[G] played independently."""
    rewards: Sequence[RewardResult]
    """[G] one for each trajectory."""

    def __post_init__(self) -> None:
        if len(self.rewards) != len(self.trajectories):
            raise ValueError(f"{len(self.rewards)} rewards for {len(self.trajectories)} trajectories")
