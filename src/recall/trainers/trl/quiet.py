"""What watches a run in the processes that are not the first: nothing."""

from collections.abc import Mapping


class Quiet:
    """An `Observer` that shows nothing."""

    def start(self, total_steps: int, header: str = "", *, done: int = 0) -> None:
        """See `Observer`."""

    def baseline(self, before: Mapping[str, float]) -> None:
        """See `Observer`."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """See `Observer`."""

    def validation(self, now: Mapping[str, float]) -> None:
        """See `Observer`."""

    def note(self, text: str) -> None:
        """See `Observer`."""
