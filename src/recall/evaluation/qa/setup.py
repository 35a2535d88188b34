"""Put a measurement together from settings: the policy behind its engine, the retriever, the method, the manifest."""

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recall import __version__
from recall.datasets.convert import checked_url
from recall.datasets.qa import Question
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError
from recall.evaluation.engines import ServedPolicySettings, open_engine
from recall.evaluation.local import SandboxSettings
from recall.evaluation.qa import baselines
from recall.evaluation.qa.methods import Agent, Method
from recall.evaluation.qa.oracle import Evidence, check_hops, oracle
from recall.policy.base import Policy
from recall.renderer import PLACEHOLDER, ChatMLRenderer, Renderer
from recall.retriever.base import Retriever
from recall.tools.search import NativeSearch
from recall.types import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from recall.sandbox.base import Sandbox

MethodName = Literal[
    "recall", "research", "naive", "zero-shot", "rag", "ircot", "iter-retgen", "oracle", "oracle-answer"
]
"""Every method."""
_BASELINES: Mapping[str, type[baselines.Baseline]] = {
    "naive": baselines.Naive,
    "zero-shot": baselines.ZeroShot,
    "rag": baselines.OneSearch,
    "iter-retgen": baselines.IterRetGen,
    "ircot": baselines.IRCoT,
}
_ORACLES: Mapping[str, Evidence] = {"oracle": "paragraph", "oracle-answer": "answer"}
_CLOSED_BOOK = ("naive", "zero-shot")
QA_LIMITS = Limits(max_turns=10, max_tokens=8192, max_turn_tokens=1024, max_calls=32, call_timeout_s=60.0)
"""The budget of an episode: room for nine searches of five passages of 100 words, and an answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, besides the questions."""

    method: MethodName
    """How questions are answered."""
    policy: ServedPolicySettings = field(default_factory=ServedPolicySettings)
    """By whom; an oracle needs none."""
    retriever: Retriever | None = None
    """What is searched; None for methods that do not search."""
    service: str = ""
    """The address of the retriever, where it is a service."""
    tool: Literal["native", "row"] = "native"
    """Whether an agent's searches go to the retriever directly, or through the published row in the sandbox."""
    top_k: int = 5
    """Passages of a search that names no number."""
    limits: Limits = QA_LIMITS
    """Of an episode; of a turn for the baselines."""
    temperature: float = 0.0
    """Of sampling; 0 is greedy."""
    top_p: float = 1.0
    """Of sampling."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """Where the row's tool runs."""

    @property
    def is_oracle(self) -> bool:
        """Whether it is the retriever that is measured, and no policy."""
        return self.method in _ORACLES

    @property
    def budget(self) -> Limits:
        """The limits; an oracle has none that matter, since its tokens are nobody's."""
        if not self.is_oracle:
            return self.limits
        wide = {"max_turns": 64, "max_calls": 64, "max_tokens": 4_000_000, "max_result_chars": 1_000_000}
        return self.limits.model_copy(update={**wide, "max_turn_tokens": 65_536})

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: a setting is missing, or the method has no use for it.
        """
        if self.retriever is None and self.method not in _CLOSED_BOOK:
            raise ConfigError(f"--retriever: missing; {self.method} searches: an index directory or an http(s) address")
        if self.retriever is not None and self.method in _CLOSED_BOOK:
            raise ConfigError(f"--retriever: {self.method} does not search; leave it out")
        if self.policy.dialect not in ("recall", self.method):
            raise ConfigError(f"--policy.dialect {self.policy.dialect}: the method decides the dialect; leave it out")
        if self.policy.template is not None and self.method not in ("recall", "research"):
            raise ConfigError(f"--policy.template: {self.method} has its own prompts; leave it out")
        if self.sandbox.search or self.sandbox.search_url:
            raise ConfigError("--sandbox.search and --sandbox.search_url: here it is --retriever that is searched")
        if self.tool == "row":
            if self.method not in ("recall", "research"):
                raise ConfigError(f"--tool row: {self.method} calls no tool; leave it out")
            checked_url(self.service)

    def facts(self, questions: list[Question], dataset: Path) -> dict[str, Any]:
        """What decides the numbers, for the manifest.

        Raises:
            ConfigError: the dataset cannot be read.
        """
        template = self.policy.template
        policy: dict[str, Any] = {"model": self.policy.model, "url": self.policy.url, "dtype": self.policy.dtype}
        policy |= {"from_text": self.policy.from_text, "template_sha256": _sha256(template) if template else ""}
        baseline = resources.files(baselines.__package__).joinpath("prompts.py").read_bytes()
        return {
            "method": self.method,
            "dataset": {"name": dataset.stem, "path": str(dataset), "sha256": _sha256(dataset)},
            "questions": len(questions),
            "policy": {} if self.is_oracle else policy,
            "prompts_sha256": hashlib.sha256(baseline).hexdigest() if self.method in _BASELINES else "",
            "retriever": None if self.retriever is None else dataclasses.asdict(self.retriever.card),
            "tool": self.tool,
            "top_k": self.top_k,
            "limits": self.budget.model_dump(),
            "sampling": {"temperature": self.temperature, "top_p": self.top_p},
            "recall": __version__,
        }


@asynccontextmanager
async def open_method(plan: Plan, questions: list[Question]) -> AsyncIterator[Method]:
    """The method of a plan, with the engine and the sandbox that it needs, for as long as the block lasts.

    Raises:
        ConfigError: a setting, the model, or a question of an oracle will not do.
    """
    plan.check()
    sampling = Sampling(plan.temperature, plan.top_p, plan.budget.max_turn_tokens)
    async with _engine(plan, questions) as (policy, renderer, instructed):
        if plan.method in _BASELINES:
            bench = baselines.Bench(policy, instructed, plan.budget, sampling, plan.retriever, plan.top_k)
            yield _BASELINES[plan.method](bench)
            return
        sandbox = _sandbox(plan)
        environments = ToolEnvironments(sandbox, plan.budget)
        writer = oracle(_ORACLES[plan.method], renderer) if plan.is_oracle else policy
        try:
            yield Agent(writer, renderer, environments, plan.budget, sampling, top_k=plan.top_k)
        finally:
            await sandbox.close()


@asynccontextmanager
async def _engine(
    plan: Plan, questions: list[Question]
) -> AsyncIterator[tuple[Policy, Renderer, Callable[[str], Renderer]]]:
    """The policy, its renderer, and a maker of renderers with an instruction for a system message."""
    settings, dialect = plan.policy, "research" if plan.method == "research" else "recall"
    if plan.is_oracle:
        for question in questions:
            check_hops(question, _ORACLES[plan.method])
        settings = ServedPolicySettings()  # nano, of which only the tokenizer is used
    async with open_engine(settings.model_copy(update={"dialect": dialect})) as engine:
        yield engine.policy, engine.renderer, _instructed(engine.tokenizer)


def _instructed(tokenizer: "PreTrainedTokenizerFast") -> Callable[[str], Renderer]:
    @lru_cache(maxsize=16)
    def renderer(instruction: str) -> Renderer:
        # The schemas of no tools are nothing, so the instruction stands alone.
        return ChatMLRenderer(tokenizer, template=instruction + PLACEHOLDER)

    return renderer


def _sandbox(plan: Plan) -> "Sandbox":
    """Where calls of the search tool are answered."""
    if plan.tool == "native":
        assert plan.retriever is not None, "check refuses an agent without one"
        return NativeSearch(plan.retriever, top_k=plan.top_k)
    return plan.sandbox.model_copy(update={"search_url": plan.service}).open_with_search()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
