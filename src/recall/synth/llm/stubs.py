"""What a model reads of generated tools: signatures and docstrings, without what stands in them."""

import ast

from recall.synth.llm.schemas import parsed


def stubs(source: str) -> str:
    """The public functions of a source, each as its signature and docstring."""
    return "\n\n".join(
        _stub(node)
        for node in parsed(source).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )


def _stub(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    lines = [
        f'"""{line}' if not number else line for number, line in enumerate((ast.get_docstring(node) or "").split("\n"))
    ]
    lines[-1] += '"""'
    body = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"def {node.name}({ast.unparse(node.args)}){returns}:\n{body}"
