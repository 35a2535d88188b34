"""The files of the page, and how they become one script in a page that opens from disk."""

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The files of the page that are served, by suffix."""
STYLES = ("vendor/uplot.css", "theme.css", "tokens.css", "window.css")
"""The styles of the page, in order."""
_IMPORT = re.compile(r'^import \{ ([^}]+) \} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|let) (\w+)", re.MULTILINE)


def page_files() -> dict[str, tuple[bytes, str]]:
    """The files of the page by name, with their types; nothing else on the disk can be asked for."""
    found: dict[str, tuple[bytes, str]] = {}

    def take(folder: Traversable, prefix: str) -> None:
        for file in folder.iterdir():
            if file.is_dir():
                take(file, f"{prefix}{file.name}/")
            elif (suffix := f".{file.name.rpartition('.')[2]}") in TYPES:
                found[prefix + file.name] = (file.read_bytes(), TYPES[suffix])

    take(resources.files("recall.viewer.window") / "page", "")
    return found


def bundle(files: Mapping[str, str], name: str) -> str:
    """Modules as one script: each is a function that returns what it exports; a page from disk may import nothing."""
    done: dict[str, str] = {}

    def take(module: str) -> None:
        if module in done:
            return
        source = files[f"{module}.js"]
        for _, needed in _IMPORT.findall(source):
            take(needed)
        inside = _IMPORT.sub(lambda found: f"const {{ {found[1]} }} = ${found[2]};\n", source)
        exported = [found[1] for found in _EXPORT.findall(inside)]
        inside = _EXPORT.sub(r"\1 \2", inside)
        if module == name:
            done[module] = inside
        else:
            done[module] = f"const ${module} = (() => {{\n{inside}\nreturn {{ {', '.join(exported)} }};\n}})();"

    take(name)
    script = "\n".join(done.values())
    if "</script" in script.lower():
        raise ValueError("a module holds the end of a script element")
    return script


def sha256(text: str) -> str:
    """What a content security policy calls a script or a style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
