"""What runs in the checkers' own environment: the leaderboard's backends and checkers, behind lines of JSON.

Started as a script by that environment's interpreter, so it imports nothing of ReCall. Each line on standard input is a
request `{"n", "do", …}`; each on standard output the answer to it, `{"n", "result"}` or `{"n", "error"}`. Calls reach a
backend as a method's name and a mapping of arguments: no text of a model is evaluated here.
"""

import copy
import importlib
import inspect
import json
import sys
import types
from typing import Any

_INSTANCES: dict[str, dict[str, Any]] = {}
"""The backends of each open episode, by class."""


def _prepare() -> None:
    """Stand in for the module that would import the software of every vendor of models."""
    config = types.ModuleType("bfcl_eval.constants.model_config")

    class Models(dict):  # type: ignore[type-arg]
        def __missing__(self, name: str) -> Any:
            return types.SimpleNamespace(underscore_to_dot=False, display_name=name)

    config.MODEL_CONFIG_MAPPING = Models()  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = config


def _open(request: dict[str, Any]) -> Any:
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES

    instances = {}
    for name in request["classes"]:
        instance = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in STATELESS_CLASSES:
            config = copy.deepcopy(request["config"].get(name, {}))
            instance._load_scenario(config, long_context=request["long_context"])
        instances[name] = instance
    _INSTANCES[request["id"]] = instances
    return sorted(
        method
        for instance in instances.values()
        for method, _ in inspect.getmembers(instance, predicate=inspect.ismethod)
        if not method.startswith("_")
    )


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


def _close(request: dict[str, Any]) -> Any:
    _INSTANCES.pop(request["id"], None)


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

    return _told(
        ast_checker(
            request["functions"], request["calls"], request["truth"], Language.PYTHON, request["category"], "recall"
        )
    )


def _told(verdict: dict[str, Any]) -> dict[str, Any]:
    message = verdict.get("error_message") or verdict.get("error") or ""
    return {
        "valid": bool(verdict["valid"]),
        "error_type": str(verdict.get("error_type", "")),
        "message": message if isinstance(message, str) else "; ".join(map(str, message)),
    }


def _data(request: dict[str, Any]) -> Any:
    import bfcl_eval

    return {"package": next(iter(bfcl_eval.__path__))}


_REQUESTS = {"open": _open, "call": _call, "close": _close, "multi_turn": _multi_turn, "ast": _ast, "data": _data}


def main() -> None:
    """Answer requests until standard input ends."""
    _prepare()
    answers = sys.stdout
    sys.stdout = sys.stderr  # backends print
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"n": request["n"]}
        try:
            answer["result"] = _REQUESTS[request["do"]](request)
        except Exception as fault:  # noqa: BLE001 - the other side names it as the checkers' failure
            answer["error"] = f"{type(fault).__name__}: {fault}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
