"""What sources compiled to, kept for the sessions that come with the same ones, as those of a group do.

Compiling is half of the time that a session of the pool needs for its first answer. The parent neither compiles nor
reads a code: a child does, before it runs a line of the source, and hands on the text that the next child gets in the
source's place. So whoever could tamper with it has the compiler in his hand, inside a sandbox, and reaches sessions
of the very same source.
"""

from collections import OrderedDict

from recall.sandbox.inside.wire import CODE_BYTES

_SOURCES = 256


class Codes:
    """The codes of the sources that were used last, as text. Sources and codes are held to 16 MiB at most."""

    def __init__(self, sources: int = _SOURCES) -> None:
        self._sources = sources
        self._known: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, source: str) -> str | None:
        """The code of a source, if it is known."""
        code = self._known.get(source)
        if code is not None:
            self._known.move_to_end(source)
        return code

    def keep(self, source: str, code: bytes) -> None:
        """Keep what a child says that a source compiled to; not what is too long or no text."""
        if not code or not code.isascii() or len(source) + len(code) > CODE_BYTES:
            return
        self._known[source] = code.decode()
        if len(self._known) > self._sources:
            self._known.popitem(last=False)
