"""What can end a piece of work here, besides the failures that all of ReCall knows."""

from recall.errors import PolicyError


class EndpointError(PolicyError):
    """The endpoint is down, or answers what no endpoint answers, and went on so through all attempts."""


class RefusedError(Exception):
    """The endpoint will not answer this request, however often it is asked (a prompt that is too long, say)."""


class SpentError(Exception):
    """The budget does not cover the next request. What was answered is kept, so a later run goes on from here."""


class RejectedError(Exception):
    """Something that the model wrote does not hold."""

    def __init__(self, gate: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{gate}: {reason}: {detail}" if detail else f"{gate}: {reason}")
        self.gate = gate
        """The check that it failed."""
        self.reason = reason
        """Why, in a few words that many have in common; they are counted."""
        self.detail = detail
        """Where and how exactly, for people and for the model that may mend it."""
