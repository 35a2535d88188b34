"""Set up what plays episodes on this machine: a model, its renderer, the torch engine and the local sandbox."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from recall.config import Settings
from recall.datasets.convert import checked_url
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError
from recall.evaluation.play import Player
from recall.policy.stopping import StopAtText
from recall.policy.vllm import VllmPolicy, VllmSettings
from recall.renderer import Renderer, build
from recall.rewards import get
from recall.rewards.base import Reward
from recall.sandbox.base import SessionOptions
from recall.tools.search import AddressedSearch, NativeSearch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from recall.policy.torch import TorchPolicy
    from recall.sandbox.base import Sandbox

NANO_LIMITS = Limits(max_turns=8, max_tokens=512, max_turn_tokens=48, max_calls=12, max_result_chars=256)
"""The budget of an episode of a generated task: enough for six calls, each in a turn of its own, and an answer."""


class PolicySettings(Settings):
    """The model."""

    named_by: ClassVar[str] = "engine"

    model: str = "nano"
    """A directory in Hugging Face's format, or `nano`, the policy that comes with ReCall."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it computes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What it computes in: float32 on the CPU, bfloat16 on CUDA unless said otherwise."""
    dialect: str = "recall"
    """How tools are called: `recall`, `research`, or `native`, the model's own chat template; see docs/renderers.md."""
    template: Path | None = None
    """A prompt from a file: a system message, with `{func_schemas}` where the schemas go; for `native` a chat template
    where its name ends in .jinja."""
    lora_rank: int = Field(default=0, ge=0)
    """Train a LoRA adapter of this rank instead of the weights; 0 trains the weights."""
    max_batch: int = Field(default=256, ge=1)
    """Episodes that are sampled at the same time."""
    engine: Literal["torch", "vllm"] = "torch"
    """What samples: `torch`, on the weights that are trained, or `vllm`, on a copy that follows them."""
    vllm: VllmSettings = VllmSettings()


class SandboxSettings(Settings):
    """Where the tools of tasks run."""

    urls: tuple[str, ...] = ()
    """Servers of `recall sandbox serve`, such as http://127.0.0.1:8900; without one, tools run on this machine. Their
    token is read from RECALL_SANDBOX_TOKEN."""
    profile: str = "default"
    """The profile of every session."""
    transactional: bool = False
    """A call that dies leaves the tools' state as it was before."""
    require: tuple[str, ...] = ()
    """On this machine: refuse to run without these promises of isolation: fs, net, proc."""
    web: tuple[str, ...] = ()
    """On this machine: what tools may reach by requests and urllib, a rule each."""
    search: str = ""
    """What `wikipedia_search` searches without the sandbox, an index directory or the address of a service."""
    search_url: str = ""
    """The address of a retriever service for tasks whose source waits for one and posts to it from the sandbox."""
    bfcl: Path | None = None
    """For tasks over the backends of BFCL, an interpreter that has bfcl-eval in the place of the one that `recall eval
    bfcl --setup` made."""

    def open_all(self) -> "Sandbox":
        """The sandbox with all that tasks may ask of it: `open_with_search`, and the backends of BFCL.

        Raises:
            ConfigError: as `open_with_search`.
        """
        from recall.evaluation.bfcl.training.backends import BackendSandbox

        return BackendSandbox(self.open_with_search(), self.bfcl)

    def open_with_search(self) -> "Sandbox":
        """The sandbox, with the search tool as the settings say; a retriever is opened and closed with it.

        Raises:
            ConfigError: as `open`, or the retriever cannot be opened.
        """
        if self.search and self.search_url:
            raise ConfigError("sandbox.search_url: searches are native with sandbox.search; give one of the two")
        if self.search:
            from recall.retriever.open import open_retriever

            return NativeSearch(open_retriever(self.search), self.open(), owned=True)
        if not self.search_url:
            return AddressedSearch(self.open())
        url = checked_url(self.search_url)
        # Servers have rules of their own.
        web = self.web if self.urls else (*self.web, f"{url}/search")
        return AddressedSearch(self.model_copy(update={"web": web}).open(), url)

    def open(self) -> "Sandbox":
        """The sandbox that the settings name; nothing is started or connected to yet.

        Raises:
            ConfigError: a setting is wrong, or one of this machine's is given beside servers.
        """
        if self.urls:
            from recall.sandbox.client import RemoteSandbox

            for name, flag in (("require", "--require"), ("web", "--web-rules")):
                if getattr(self, name):
                    raise ConfigError(f"sandbox.{name}: is a setting of the servers; start them with {flag}")
            return RemoteSandbox(self.urls)
        from recall.sandbox.local import LocalSandbox

        if not self.web:
            return LocalSandbox(require=self.require)
        from recall.sandbox.egress.broker import Broker
        from recall.sandbox.egress.rules import Rule

        return LocalSandbox(require=self.require, web=Broker([Rule.parse(line) for line in self.web]))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to sample and to be trained."""

    model: Any
    """A causal language model of `transformers`, what is trained of it in float32."""
    tokenizer: "PreTrainedTokenizerFast"
    """The model's."""
    renderer: Renderer
    """Of the model's family and the dialect asked for."""
    device: "torch.device"
    """Where it is."""
    dtype: "torch.dtype"
    """What to compute in."""
    settings: PolicySettings
    """What it was loaded by."""


def load(settings: PolicySettings, checkpoint: Path | None = None) -> LoadedModel:
    """Load the model that the settings name, or its weights from a checkpoint of a run.

    Raises:
        ConfigError: the model, its tokenizer, the device or the template will not do.
    """
    import torch

    from recall.policy.torch.loading import device_named, dtype_named, load_model, load_tokenizer, resolve, with_lora

    device = device_named(settings.device)
    source = resolve(settings.model)
    tokenizer = load_tokenizer(source)
    renderer = build(tokenizer, settings.dialect, settings.template)
    dtype = dtype_named(settings.dtype, device)
    # Weights that are trained stay in float32; under an adapter they need not be more than what is computed in.
    model = load_model(checkpoint or source, device=device, dtype=dtype if settings.lora_rank else torch.float32)
    if settings.lora_rank and checkpoint is None:
        model = with_lora(model, settings.lora_rank)
    return LoadedModel(model, tokenizer, renderer, device, dtype, settings)


def sampler_of(
    loaded: LoadedModel,
    *,
    max_batch: int | None = None,
    deterministic: bool | None = None,
    before_top_p: bool = False,
) -> "TorchPolicy | VllmPolicy":
    """What samples turns of the model: an engine over its weights, or vLLM, not started yet, with those of its files.

    Args:
        loaded: the model, with the settings that name the engine.
        max_batch: the most turns in one forward pass; None takes the settings'.
        deterministic: of the torch engine; see `TorchPolicy`.
        before_top_p: of vLLM; see `VllmPolicy`.

    Raises:
        ConfigError: the engine is not installed, cannot run the model, or cannot do what is asked.
    """
    settings, stops = loaded.settings, sorted(loaded.renderer.stop_token_ids)
    if settings.engine == "torch":
        from recall.policy.torch import TorchPolicy

        return TorchPolicy(
            loaded.model,
            stop_token_ids=stops,
            dtype=None if loaded.dtype == next(loaded.model.parameters()).dtype else loaded.dtype,
            max_batch=max_batch or settings.max_batch,
            deterministic=deterministic,
        )
    from recall.policy.torch.loading import resolve

    if deterministic:
        raise ConfigError(
            "deterministic: vLLM does not repeat bit for bit; leave it out, or set policy.engine to torch"
        )
    return VllmPolicy(
        resolve(settings.model),
        stop_token_ids=stops,
        device="cuda" if loaded.device.type == "cuda" else "cpu",
        dtype=str(loaded.dtype).removeprefix("torch."),
        settings=settings.vllm,
        max_batch=max_batch or settings.max_batch,
        before_top_p=before_top_p,
    )


class LocalPlayer:
    """A `Player` on this machine, as an async context manager that ends the engine and the sandbox."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        reward: str | Reward = "outcome",
        limits: Limits = NANO_LIMITS,
        sandbox: SandboxSettings | None = None,
        max_batch: int = 256,
        deterministic: bool | None = None,
        before_top_p: bool = False,
    ) -> None:
        """Raises ConfigError for an unknown reward, or a model that the engine cannot run."""
        from recall.evaluation.bfcl.training.dialogue import with_dialogue

        self._loaded = loaded
        self.policy = sampler_of(loaded, max_batch=max_batch, deterministic=deterministic, before_top_p=before_top_p)
        settings = sandbox or SandboxSettings()
        self.sandbox = settings.open_all()
        self.options = SessionOptions(settings.profile, transactional=settings.transactional)
        environments = with_dialogue(ToolEnvironments(self.sandbox, limits, self.options))
        texts = loaded.renderer.stop_texts
        scorer = get(reward) if isinstance(reward, str) else reward
        policy = StopAtText(self.policy, loaded.renderer.decode, texts) if texts else self.policy
        self.player = Player(policy, loaded.renderer, environments, scorer, limits)

    async def __aenter__(self) -> Player:
        if isinstance(self.policy, VllmPolicy):
            await self.policy.start()
            await self.policy.follow(self._loaded.model, self.policy.version)
        return self.player

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.policy.close()
        await self.sandbox.close()
