"""The command line: finds the command, builds its settings, and is the one boundary where errors become exit statuses.

A command is a model of settings with a `main`, in one module, named by one line of `COMMANDS`; CONTRIBUTING.md shows
one. `recall --help` imports none of them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from recall import __version__
from recall.errors import ConfigError, RolloutError

if TYPE_CHECKING:
    from recall.config import Settings


class Command(NamedTuple):
    """Where a command is."""

    module: str
    """The module, imported when the command is called."""
    model: str
    """Its settings there: a `Settings` with `main(self) -> int | None`."""
    summary: str
    """One line for `recall --help`."""


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "data inspect": Command("recall.cli.data", "Inspect", "Say what is in a file of tasks, and which rows are bad"),
        "data convert": Command("recall.cli.data", "Convert", "Rewrite a file of tasks as parquet or JSONL"),
        "data corpus": Command("recall.cli.data_qa", "Corpus", "Make a closed corpus of the paragraphs of questions"),
        "data download": Command("recall.cli.data_qa", "Download", "Get a benchmark of questions, or a corpus"),
        "data qa": Command("recall.cli.data_qa", "Rows", "Make task rows with the search tool of questions"),
        "data report": Command("recall.cli.data", "Report", "Measure a set of tasks, and say whether its gates hold"),
        "eval": Command("recall.cli.eval", "Eval", "Measure a model on tasks that it may use tools for"),
        "doctor": Command("recall.cli.doctor", "Doctor", "Say what would go wrong with a recipe before it runs"),
        "eval bfcl": Command("recall.cli.eval_bfcl", "EvalBfcl", "Play the function-calling leaderboard BFCL"),
        "eval bfcl compare": Command("recall.cli.eval_bfcl", "CompareBfcl", "Put two runs over BFCL side by side"),
        "eval compare": Command("recall.cli.eval_qa", "Compare", "Put runs of eval qa side by side, with paired tests"),
        "eval qa": Command("recall.cli.eval_qa", "EvalQa", "Measure multi-hop question answering with search"),
        "export": Command("recall.cli.export", "Export", "Write the weights of a run in Hugging Face's format"),
        "nano pretrain": Command(
            "recall.cli.nano", "Pretrain", "Make nano, the policy that comes with ReCall, from nothing"
        ),
        "plan": Command("recall.cli.plan", "PlanRecipe", "Count what a recipe takes, and say what will not fit"),
        "replay": Command(
            "recall.cli.replay", "Replay", "Score trajectories again, run their calls again, compare runs"
        ),
        "retriever build": Command("recall.cli.retriever", "Build", "Build an index over a corpus of passages"),
        "retriever inspect": Command("recall.cli.retriever", "Inspect", "Say what is in an index, and check its files"),
        "retriever search": Command("recall.cli.retriever", "Search", "Search an index, or a service"),
        "retriever serve": Command("recall.cli.retriever_serve", "Serve", "Search an index for others over HTTP"),
        "run": Command("recall.cli.run", "Run", "Ask one question of a model with tools, and show what happens"),
        "sandbox serve": Command("recall.cli.sandbox", "Serve", "Run tools for others over HTTP, in the sandbox"),
        "score": Command("recall.cli.score", "Score", "Score transcripts or the trajectories of a run with a reward"),
        "serve": Command("recall.cli.serve", "Serve", "Serve a model with its tools to OpenAI's clients"),
        "show": Command("recall.cli.show", "Show", "Summarise a run, and print its trajectories as text"),
        "synth bfcl": Command("recall.cli.synth_bfcl", "Bfcl", "Make dialogues over the backends of BFCL to train on"),
        "synth encyclopedia": Command(
            "recall.cli.synth", "Encyclopedia", "Make a fictional encyclopedia with multi-hop questions over it"
        ),
        "synth export": Command("recall.cli.synth", "Export", "Write tasks as rows for other trainers"),
        "synth llm": Command(
            "recall.cli.synth_llm", "LLM", "Have a language model write worlds and tasks, and keep what holds"
        ),
        "synth nano": Command("recall.cli.synth", "Nano", "Write tasks of the small generator as rows"),
        "synth paraphrase": Command(
            "recall.cli.synth_llm", "Paraphrase", "Say the questions of tasks in other words, checked"
        ),
        "synth procedural": Command(
            "recall.cli.synth", "Procedural", "Make a set of certified tasks over invented worlds"
        ),
        "train": Command("recall.cli.train", "Train", "Train a policy on tasks with tools, by reinforcement"),
        "view": Command("recall.cli.view", "View", "Look at runs and trajectories in a browser, live"),
    }
)
"""Every command; a space makes it a command of a command."""

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "pyarrow": "data",
        "torch": "train",
        "transformers": "train",
        "safetensors": "train",
        "peft": "train",
        "tensorboard": "train",
        "accelerate": "train",
        "vllm": "vllm",
        "trl": "trl",
        "ray": "verl",
        "verl": "verl",
        "wandb": "tracking",
        "trackio": "tracking",
        "bm25s": "retriever",
        "Stemmer": "retriever",
        "tantivy": "retriever",
        "faiss": "retriever",
        "fastapi": "view",
        "msgspec": "view",
        "uvicorn": "serve",
        "httptools": "serve",
        "prometheus_client": "serve",
        "aiohttp": "serve",
        "yaml": "retriever",
        "qdrant_client": "retriever",
        "mcp": "mcp",
        "httpx2": "mcp",
    }
)
"""The extra that brings a package."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        arguments: what follows `recall`; None takes the process's own.

    Returns:
        The command's status: 0 when it says nothing else, 2 for a user's error, 1 for a failure of ours, 130 when
        interrupted, 141 when the reader of its output went away. Anything unforeseen keeps its traceback.
    """
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(error, 2)
    except RolloutError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        return _fail(f"{package} is not installed; it comes with: pip install 'recall[{EXTRAS[package]}]'", 2)
    return status


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"recall {__version__}")
        return 0
    name = _command_name(arguments)
    if name not in COMMANDS:
        print(_listing(name))
        return 0
    rest = arguments[len(name.split()) :]
    model = _model(COMMANDS[name])
    before_dashes = rest[: rest.index("--")] if "--" in rest else rest
    if "--help" in before_dashes or "-h" in before_dashes:
        from recall.cli.usage import usage

        print(usage(name, model))
        return 0
    return settings_from(name, model, rest).main() or 0  # type: ignore[attr-defined]


def settings_from(name: str, model: "type[Settings]", arguments: Sequence[str]) -> "Settings":
    """The settings of the command `name`: its positional arguments, its recipe, and its flags.

    Raises:
        ConfigError: too many or too few arguments, or what `config.load` refuses.
    """
    import json
    from pathlib import Path

    from recall.config import REQUIRED, load, members, split_arguments, takes_many

    positionals, flags = split_arguments(model, arguments)
    overrides = [f"--{key}={text}" for key, text in flags]
    if model.takes_recipe:
        if len(positionals) > 1:
            raise ConfigError(f"recall {name}: unexpected argument {positionals[1]!r}; it takes one recipe")
        return load(model, Path(positionals[0]) if positionals else None, overrides)
    for key in members(model).values():
        if key.positional and positionals:
            many = takes_many(key.annotation)
            text = json.dumps(positionals, ensure_ascii=False) if many else positionals[0]
            overrides.append(f"--{key.name}={text}")
            positionals = [] if many else positionals[1:]
        elif key.positional and key.default is REQUIRED and key.name not in dict(flags):
            raise ConfigError(f"recall {name}: {key.name.upper()} is missing; it takes {key.accepts}")
    if positionals:
        raise ConfigError(f"recall {name}: unexpected argument {positionals[0]!r}; see recall {name} --help")
    return load(model, None, overrides)


def _command_name(arguments: Sequence[str]) -> str:
    """The longest name of a command, or of a family of commands, that the command line starts with.

    Raises:
        ConfigError: it starts with something else.
    """
    name = ""
    for word in arguments:
        longer = f"{name} {word}".strip()
        if not any(f"{command} ".startswith(f"{longer} ") for command in COMMANDS):
            break
        name = longer
    rest = arguments[len(name.split()) :]
    if name not in COMMANDS and rest and rest[0] not in ("-h", "--help"):
        import difflib

        wrong = f"{name} {rest[0]}".strip()
        near = difflib.get_close_matches(wrong, COMMANDS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{wrong!r} is not a command; the nearest is recall {near}; see recall --help")
    return name


def _model(command: Command) -> "type[Settings]":
    import importlib

    model: type[Settings] = getattr(importlib.import_module(command.module), command.model)
    return model


def _listing(family: str) -> str:
    shown = {name: c for name, c in sorted(COMMANDS.items()) if f"{name} ".startswith(f"{family} ".lstrip())}
    width = max(map(len, shown))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in shown.items()]
    title = f"recall {family}".strip()
    head = [f"usage: {title} COMMAND [arguments]", ""]
    if not family:
        head += ["Train language models to reason with tool calls by reinforcement learning.", ""]
    return "\n".join([*head, *lines, "", f"{title} COMMAND --help says what a command takes; recall --version."])


def _fail(message: object, status: int) -> int:
    print("recall:", " ".join(str(message).split("\n")), file=sys.stderr)
    return status
