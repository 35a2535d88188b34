"""Where a distribution and what it depends on lie, so that a sandbox can show just these. It installs nothing."""

import re
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from recall.errors import ConfigError


def readable_paths(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """What to put on the module search path, and which files and directories to show, for some distributions.

    Args:
        names: of distributions, as `pip` knows them; what they require is found too, extras left out.

    Raises:
        ConfigError: one of `names` is not installed here.
    """
    found: dict[str, Distribution] = {}
    todo = list(names)
    while todo:
        name = _canonical(todo.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in map(_canonical, names):
                raise ConfigError(f"sandbox packages: {name!r} is not installed in this environment") from None
            continue  # a requirement for another platform or Python
        todo += [_required(line) for line in found[name].requires or [] if "extra ==" not in line]
    roots, tops = dict[str, None](), dict[str, None]()
    for each in found.values():
        roots[str(each.locate_file(""))] = None
        for file in each.files or []:
            if file.parts[0] not in ("..", "__pycache__") and not file.parts[0].endswith((".dist-info", ".pth")):
                tops[str(each.locate_file(file.parts[0]))] = None
    return list(roots), [top for top in tops if Path(top).exists()]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(line: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", line.strip())
    return match.group() if match else line
