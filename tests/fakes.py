"""Small real implementations of the seams, for tests: a ChatML tokenizer in memory, a sandbox in this process."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from recall.errors import SandboxError
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Session, SessionOptions
from recall.types import CallStatus, ToolSpec

ABBREVIATION = '{"type": "function", "function": {"name": "'
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_LINES = [
    "You answer questions by reasoning and by calling tools.",
    'system user assistant {"name": "get_age", "arguments": {"name": "Ada"}}',
    "What is the age of the parent of Ada? The answer is 42.",
]


def chatml_tokenizer(*, tags: Sequence[str] = TAGS, extra: Sequence[AddedToken] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens with ChatML's special tokens, non-special tags and an abbreviation."""
    plain = [AddedToken(text, special=False, normalized=False) for text in (*tags, ABBREVIATION)]
    return wrapped(byte_tokenizer(SPECIAL, [*plain, *extra]), eos_token="<|im_end|>")


def byte_tokenizer(special: Sequence[str], added: Sequence[AddedToken] = ()) -> Tokenizer:
    """A byte-level BPE of a few hundred tokens with these special tokens, and tokens added to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        _LINES,
        trainers.BpeTrainer(
            vocab_size=360,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(special),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens(list(added))
    return tokenizer


def wrapped(tokenizer: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers knows it."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)  # type: ignore[no-untyped-call]


class InProcessSandbox:
    """Runs trusted test source in this process; functions that raise SystemExit count as crashed."""

    def __init__(self, *, broken: bool = False, lasts_calls: int = 1_000_000) -> None:
        self.broken = broken
        self.lasts_calls = lasts_calls
        self.opened = 0
        self.open_sessions = 0

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        if self.broken:
            raise SandboxError("no process could be had")
        namespace: dict[str, Any] = {}
        exec(source, namespace)
        self.opened += 1
        self.open_sessions += 1
        return _InProcessSession(self, namespace)

    async def close(self) -> None:
        self.open_sessions = 0


class _InProcessSession:
    def __init__(self, sandbox: InProcessSandbox, namespace: Mapping[str, Any]) -> None:
        self._sandbox, self._namespace, self._closed = sandbox, namespace, False

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        self._sandbox.lasts_calls -= 1
        if self._sandbox.lasts_calls < 0:
            raise SandboxError("the process is gone")
        try:
            value = self._namespace[name](**arguments)
        except SystemExit:
            return CallResult(CallStatus.CRASHED, error="the process ended")
        except TimeoutError:
            return CallResult(CallStatus.TIMEOUT, error=f"the call took longer than {timeout_s:g} s")
        except (ValueError, KeyError, TypeError) as error:
            return CallResult(CallStatus.EXCEPTION, error=f"{type(error).__name__}: {error}")
        return CallResult(CallStatus.OK, json.loads(json.dumps(value)))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sandbox.open_sessions -= 1


def tool(name: str, /, **types: str) -> ToolSpec:
    """A tool whose parameters are all required and of the given JSON types."""
    properties = {parameter: {"type": kind} for parameter, kind in types.items()}
    return ToolSpec(name, f"{name} it", {"type": "object", "properties": properties, "required": list(types)})


class Silent:
    """Watches nothing."""

    def start(self, total_steps: int, header: str = "", *, done: int = 0) -> None: ...

    def baseline(self, before: Mapping[str, float]) -> None: ...

    def step(self, metrics: Mapping[str, float]) -> None: ...

    def validation(self, now: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...
