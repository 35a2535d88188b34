"""What `--tools` names: a file of functions, of MCP servers, of an API, a row of tasks, an index, or an address."""

import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recall.errors import ConfigError
from recall.tools.base import is_marked
from recall.tools.collect import ToolLike
from recall.types import Task

ACCEPTED = "tools.py, mcp.json, openapi.json, tasks.parquet#7, a search index, or the address of an MCP server"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_ROWS = (".parquet", ".jsonl")


def read_tools(named: str) -> list[ToolLike] | Task:
    """The tools that a name stands for, or the task whose tools they are.

    Raises:
        ConfigError: it stands for none.
    """
    if named.startswith(("http://", "https://")):
        from recall.tools.mcp import MCPTools

        return [MCPTools(url=named)]
    path, _, number = named.partition("#")
    file = Path(path)
    if file.suffix in _ROWS:
        return _row(file, number)
    if file.is_dir():
        from recall.retriever.open import open_retriever
        from recall.tools.retrieval import RetrieverTools

        return [RetrieverTools(open_retriever(path), owned=True)]
    if not file.is_file():
        raise ConfigError(f"--tools {named}: no such file; accepted: {ACCEPTED}")
    if file.suffix == ".py":
        return functions_of(file)
    if file.suffix in (".json", ".yaml", ".yml"):
        return _described(file)
    raise ConfigError(f"--tools {named}: accepted: {ACCEPTED}")


def functions_of(file: Path) -> list[ToolLike]:
    """The tools of a Python file: its list `TOOLS`, or else its functions marked with `tool`, or else all public ones.

    The file is run here, as code of the user's own.

    Raises:
        ConfigError: it cannot be run, or has none.
    """
    name = f"recall_tools_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--tools {file}: {type(error).__name__}: {error}") from error
    listed = getattr(module, "TOOLS", None)
    if listed is not None:
        return list(listed)
    own = [value for value in vars(module).values() if inspect.isfunction(value) and value.__module__ == name]
    own = [value for value in own if not value.__name__.startswith("_")]
    marked = [value for value in own if is_marked(value)]
    if not own:
        raise ConfigError(f"--tools {file}: defines no public function and no TOOLS")
    return list(marked or own)


def _row(file: Path, number: str) -> Task:
    from recall.datasets.rows import read_tasks

    if not number.isdigit():
        raise ConfigError(f"--tools {file}: say which row, as in {file}#7")
    tasks = read_tasks(file)
    if int(number) >= len(tasks):
        raise ConfigError(f"--tools {file}#{number}: {file} has rows 0 to {len(tasks) - 1}")
    return tasks[int(number)]


def _described(file: Path) -> list[ToolLike]:
    """MCP servers, as other programs list them under `mcpServers`, or an OpenAPI document."""
    from recall.tools.openapi import OpenAPITools

    if file.suffix != ".json":
        return [OpenAPITools(file)]
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--tools {file}: is not JSON: {error}") from None
    if isinstance(held, dict) and ("openapi" in held or "paths" in held):
        return [OpenAPITools(file)]
    servers = held.get("mcpServers") if isinstance(held, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise ConfigError(f"--tools {file}: has neither mcpServers nor paths")
    return [_server(file, name, settings) for name, settings in servers.items()]


def _server(file: Path, name: str, settings: Any) -> ToolLike:
    from recall.tools.mcp import MCPTools

    where = f"--tools {file}: mcpServers.{name}"
    accepted = {"command", "args", "env", "url", "headers", "cwd", "only", "per_episode", "timeout_s"}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: must be an object")
    given = {key: _filled(value, where) for key, value in settings.items() if key not in ("type", "transport")}
    if unknown := sorted(given.keys() - accepted):
        raise ConfigError(f"{where}.{unknown[0]}: unknown; accepted: {', '.join(sorted(accepted))}")
    try:
        return MCPTools(**given)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _filled(value: Any, where: str) -> Any:
    """The value with every `${NAME}` replaced by the environment's, where secrets belong."""
    if isinstance(value, list):
        return [_filled(item, where) for item in value]
    if isinstance(value, Mapping):
        return {key: _filled(item, where) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in os.environ:
            raise ConfigError(f"{where}: ${{{name}}}: there is no such environment variable")
    return _VARIABLE.sub(lambda found: os.environ[found[1]], value)
