"""The rules that a program can check: who imports whom, what is loaded when, that every module has a docstring."""

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "recall"

LAYERS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("recall", "errors", "types"), (0,)),
    **dict.fromkeys(("answers", "advantage", "config", "programs", "serving", "store"), (1, 0)),
    "tool_calls": (1, 1),
    **dict.fromkeys(("renderer", "policy", "sandbox", "retriever"), (2,)),
    **dict.fromkeys(("tools", "rewards"), (3,)),
    "environment": (4,),
    "rollout": (5,),
    "datasets": (6,),
    **dict.fromkeys(("synth", "viewer"), (6, 0)),
    **dict.fromkeys(("evaluation", "nano", "replay"), (6, 1)),
    **dict.fromkeys(("inference", "trainers"), (6, 2)),
    "doctor": (6, 3),
    "cli": (7,),
}
"""The layer of each module or package directly under `recall`; a package's own modules may import each other.

Two layers have an order within: in layer 1 `tool_calls` finds answers with `answers`, and in layer 6 what reads and
writes rows comes first, then what makes or shows data, then what plays episodes, then `trainers`, which learn from what
was played, then `doctor`, which looks at their recipes. Imports point strictly downward in this order too, so two
units of one place know nothing of each other.
"""

ENGINES = {
    "torch", "transformers", "tokenizers", "safetensors", "peft", "vllm", "sglang", "verl", "ray", "trl", "faiss",
    "bm25s", "starlette", "fastapi", "uvicorn", "uvloop", "aiohttp", "prometheus_client", "mcp",
    "pyarrow", "datasets", "tensorboard", "tantivy", "Stemmer", "huggingface_hub",
}  # fmt: skip
"""What the core must not load; each belongs to an extra."""

FILES = sorted(SOURCE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = ("recall", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def unit_of(module: str) -> str:
    """The module or package directly under `recall` that a module belongs to."""
    return module.split(".")[1] if "." in module else "recall"


def layer_of(module: str) -> tuple[int, ...]:
    return LAYERS[unit_of(module)]


def imports_of(file: Path, *, at_import: bool = False) -> Iterator[str]:
    """What a file imports, by full name; with `at_import`, only what its import runs, so nothing in functions."""
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        # The package itself names, for type checkers only, what it hands out from above when it is asked for.
        if not ((at_import and (function or for_types)) or (for_types and file == SOURCE / "__init__.py")):
            todo.extend(ast.iter_child_nodes(node))


def ours(file: Path, *, at_import: bool = False) -> set[str]:
    found = {name for name in imports_of(file, at_import=at_import) if name.split(".")[0] == "recall"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in found}


def test_every_module_has_a_layer() -> None:
    assert {unit_of(module) for module in MODULES} <= set(LAYERS)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_strictly_downward(file: Path) -> None:
    module = module_of(file)
    wrong = {name for name in ours(file) if unit_of(name) != unit_of(module) and not layer_of(name) < layer_of(module)}
    assert wrong == set()


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    """A cycle of a directed graph, or []."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for successor in sorted(edges.get(node, ())):
            if found := visit(successor, [*trail, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(edges) if (found := visit(node, []))), [])


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert cycle_in({module: ours(file, at_import=True) - {module} for module, file in MODULES.items()}) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        edges.setdefault(unit_of(module), set()).update(unit_of(name) for name in ours(file))
    assert cycle_in({unit: units - {unit} for unit, units in edges.items()}) == []


ADAPTERS = ("recall.policy.torch", "recall.sandbox.egress.broker")
"""The modules of an engine of their own; nothing else of the core imports them when it is imported."""
CORE = [f for f in FILES if layer_of(module_of(f)) < (6,) and not module_of(f).startswith(ADAPTERS)]


@pytest.mark.parametrize("file", CORE, ids=module_of)
def test_the_core_loads_no_engine(file: Path) -> None:
    assert {name.split(".")[0] for name in imports_of(file, at_import=True)} & ENGINES == set()


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_every_module_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def in_a_fresh_interpreter(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_help_of_no_command_loads_an_engine() -> None:
    program = (
        "import sys, recall.cli\n"
        "statuses = [recall.cli.main([*name.split(), '--help']) for name in recall.cli.COMMANDS]\n"
        f"print(*[name for name in {sorted(ENGINES)} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(max(statuses))"
    )
    done = in_a_fresh_interpreter(program)
    assert (done.returncode, done.stderr.split()) == (0, [])


def test_help_loads_no_engine_and_is_quick() -> None:
    watched = sorted(ENGINES | {"numpy", "pydantic", "rich"})
    program = (
        "import sys, recall.cli\n"
        "status = recall.cli.main(['--help'])\n"
        f"print('loaded:', *[name for name in {watched} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(status)"
    )
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = in_a_fresh_interpreter(program)
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.stdout.startswith("usage: recall ")
        assert done.stderr.split() == ["loaded:"]
    assert min(seconds) < 0.5
