"""What runs in the checkers' own environment: the leaderboard's backends and checkers, behind lines of JSON.

Started as a script by that environment's interpreter, so it imports nothing of ReCall. Each line on standard input is a
request `{"n", "do", …}`; each on standard output the answer to it, `{"n", "result"}` or `{"n", "error"}`. Calls reach a
backend as a method's name and a mapping of arguments: no text of a model is evaluated here.
"""

import copy
import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

CALL_S = 10.0
"""Seconds of one call of a backend, after which it has failed."""
MEMORY_BYTES = 4 << 30
"""Address space of the process, so that no call takes the machine's memory."""
_ENCODER = "all-MiniLM-L6-v2"
"""The model of sentences that the vector memory asks for by name."""

_INSTANCES: dict[str, dict[str, Any]] = {}
"""The backends of each open episode, by class."""
_BEFORE: dict[str, dict[str, Any]] = {}
"""The state that each watched episode started from."""


def _prepare() -> None:
    """Stand in for the module that would import the software of every vendor of models."""
    config = types.ModuleType("bfcl_eval.constants.model_config")

    class Models(dict):  # type: ignore[type-arg]
        def __missing__(self, name: str) -> Any:
            return types.SimpleNamespace(underscore_to_dot=True, display_name=name)

    config.MODEL_CONFIG_MAPPING = Models()  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = config


def _use_encoder(directory: str) -> None:
    """Have the vector memory load its encoder from a directory instead of from a hub."""
    module: Any = importlib.import_module("sentence_transformers")
    named = module.SentenceTransformer
    module.SentenceTransformer = lambda name, **given: named(directory if name == _ENCODER else name, **given)


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"the call took longer than {CALL_S:g} s")


def _open(request: dict[str, Any]) -> Any:
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES

    instances = {}
    for name in request["classes"]:
        if name.endswith("_vector") and os.environ.get("RECALL_BFCL_ENCODER"):
            _use_encoder(os.environ["RECALL_BFCL_ENCODER"])
        instance = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in STATELESS_CLASSES:
            config = copy.deepcopy(request["config"].get(name, {}))
            if "model_result_dir" in config:
                config["model_result_dir"] = Path(config["model_result_dir"])
            instance._load_scenario(config, long_context=request["long_context"])
        instances[name] = instance
    _INSTANCES[request["id"]] = instances
    if request["watch"]:
        _BEFORE[request["id"]] = _state(instances)
    methods = sorted(
        method
        for instance in instances.values()
        for method, _ in inspect.getmembers(instance, predicate=inspect.ismethod)
        if not method.startswith("_")
    )
    return {"methods": methods, "instruction": _instruction(request, instances)}


def _instruction(request: dict[str, Any], instances: dict[str, Any]) -> str:
    """The system message of an episode with a memory: whom it serves, and what it remembers from before."""
    scenario = request["scenario"]
    if not scenario:
        return ""
    from bfcl_eval.constants import default_prompts as prompts

    ((name, memory),) = instances.items()
    unified = name.endswith("rec_sum")
    template = (
        prompts.MEMORY_BACKEND_INSTRUCTION_UNIFIED if unified else prompts.MEMORY_BACKEND_INSTRUCTION_CORE_ARCHIVAL
    )
    text = template.format(
        scenario_setting=prompts.MEMORY_AGENT_SETTINGS[scenario], memory_content=memory._dump_core_memory_to_context()
    )
    if request["conversation"]:
        return str(text)
    return f"{text}\n\n{prompts.ADDITIONAL_SYSTEM_PROMPT_FOR_AGENTIC_RESPONSE_FORMAT}"


def _call(request: dict[str, Any]) -> Any:
    name = request["name"]
    for instance in _INSTANCES[request["id"]].values():
        method = None if name.startswith("_") else getattr(instance, name, None)
        if inspect.ismethod(method):
            try:
                value = method(**request["arguments"])
            except Exception as fault:  # noqa: BLE001 - whatever a backend raises is an answer to the model
                return f"Error during execution: {fault}"
            if isinstance(value, str):
                return value
            if isinstance(value, dict):
                try:
                    return json.dumps(value)
                except (TypeError, ValueError):
                    return str(value)
            return str(value)
    return f"Error during execution: name '{name}' is not defined"


def _flush(request: dict[str, Any]) -> Any:
    for instance in _INSTANCES[request["id"]].values():
        instance._flush_memory_to_local_file()


def _close(request: dict[str, Any]) -> Any:
    _INSTANCES.pop(request["id"], None)
    _BEFORE.pop(request["id"], None)


def _changes(request: dict[str, Any]) -> Any:
    """What a watched episode changed, by path; what is gone is null."""
    before, now = _BEFORE[request["id"]], _state(_INSTANCES[request["id"]])
    gone = {path: None for path in before if path not in now}
    return gone | {path: value for path, value in now.items() if path not in before or before[path] != value}


def _state(instances: dict[str, Any]) -> dict[str, Any]:
    """The public state of backends as the checkers compare it: values by path."""
    found: dict[str, Any] = {}
    for name, instance in instances.items():
        _flatten(name, instance, found)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def _flatten(path: str, value: Any, found: dict[str, Any]) -> None:
    if hasattr(value, "__dict__"):  # a backend, or a file or folder of one, which points back at its folder
        value = {name: each for name, each in vars(value).items() if not name.startswith("_") and name != "parent"}
    if isinstance(value, dict) and value:
        for key, each in value.items():
            _flatten(f"{path}/{str(key).replace('/', '|') or '|'}", each, found)
    else:
        found[path] = sorted(value) if isinstance(value, set) else value


def _multi_turn(request: dict[str, Any]) -> Any:
    """The verdict on an episode: whether it is right, and what is wrong."""
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    before = set(vars(multi_turn_utils))
    try:
        verdict = multi_turn_checker(
            request["calls"], request["truth"], request["entry"], request["category"], f"recall_{request['n']}"
        )
    finally:
        for name in set(vars(multi_turn_utils)) - before:  # the checker keeps its backends for ever
            delattr(multi_turn_utils, name)
    return _told(verdict)


def _ast(request: dict[str, Any]) -> Any:
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    language = Language(request["language"])
    return _told(
        ast_checker(request["functions"], request["calls"], request["truth"], language, request["category"], "recall")
    )


def _agentic(request: dict[str, Any]) -> Any:
    from bfcl_eval.eval_checker.agentic_eval.agentic_checker import agentic_checker

    return _told(agentic_checker(request["said"], request["truth"]))


def _told(verdict: dict[str, Any]) -> dict[str, Any]:
    message = verdict.get("error_message") or verdict.get("error") or ""
    return {
        "valid": bool(verdict["valid"]),
        "error_type": "" if verdict["valid"] else str(verdict.get("error_type", "")),
        "message": message if isinstance(message, str) else "; ".join(map(str, message)),
    }


def _data(request: dict[str, Any]) -> Any:
    import bfcl_eval

    return {"package": next(iter(bfcl_eval.__path__))}


def _lacking(request: dict[str, Any]) -> Any:
    """Which of some modules this environment does not have."""
    return [name for name in request["modules"] if importlib.util.find_spec(name) is None]


def _usage(request: dict[str, Any]) -> Any:
    """What is open, and the most memory that this process took."""
    return {"open": len(_INSTANCES), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


_REQUESTS = {
    "open": _open,
    "call": _call,
    "flush": _flush,
    "close": _close,
    "changes": _changes,
    "multi_turn": _multi_turn,
    "ast": _ast,
    "agentic": _agentic,
    "data": _data,
    "lacking": _lacking,
    "usage": _usage,
}


def main() -> None:
    """Answer requests until standard input ends."""
    _prepare()
    signal.signal(signal.SIGALRM, _too_long)
    if not os.environ.get("RECALL_BFCL_ENCODER"):  # an encoder reserves more than it uses
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers = sys.stdout
    sys.stdout = sys.stderr  # backends print
    with tempfile.TemporaryDirectory(prefix="recall-bfcl-") as own:
        os.environ["BFCL_PROJECT_ROOT"] = own  # the package makes folders where it is imported
        for line in sys.stdin:
            request = json.loads(line)
            answer: dict[str, Any] = {"n": request["n"]}
            try:
                # The checkers execute calls too, several in a row, so the alarm rings again.
                if request["do"] in ("call", "multi_turn"):
                    signal.setitimer(signal.ITIMER_REAL, CALL_S, CALL_S)
                answer["result"] = _REQUESTS[request["do"]](request)
            except Exception as fault:  # noqa: BLE001 - the other side names it as the checkers' failure
                answer["error"] = f"{type(fault).__name__}: {fault}"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
