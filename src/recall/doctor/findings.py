"""What a check found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    check: str
    """The name of the check."""
    state: Literal["ok", "wrong", "skipped"]
    """`skipped` where it does not apply, or what it needs is not there."""
    found: str
    """What was looked at and seen; of what is wrong, what exactly."""
    cost: str = ""
    """Of what is wrong: what it would have cost."""
    cure: str = ""
    """Of what is wrong: how to mend it."""
    refused: bool = False
    """Of what is wrong: a run would refuse to start for it anyway, in words of its own."""

    def line(self) -> str:
        """The line to print."""
        text = f"{self.state:7}  {self.check:12}  {self.found}"
        if self.state == "wrong":
            text += f". It would have cost: {self.cost}. To mend it: {self.cure}"
        return " ".join(text.split("\n"))


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def wrong(check: str, found: str, *, cost: str, cure: str) -> Finding:
    """Something is not."""
    return Finding(check, "wrong", found, cost, cure)


def refused(check: str, why: str) -> Finding:
    """Something is not, and no run would start with it."""
    return Finding(check, "wrong", why, "nothing: the run would not have started", "mend what it says", refused=True)


def skipped(check: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(check, "skipped", why)


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any is wrong."""
    return any(finding.state == "wrong" for finding in findings)
