"""What a question must say as it is: names, ids, labels, bounds, currencies, numbers."""

from recall.synth.procedural.plans import Above, Anchor, Between, Labelled, Where
from recall.synth.procedural.plans import Scalar as Plan
from recall.synth.procedural.scalars import Convert, Later


def literals(plan: Plan) -> list[str]:
    """The texts that the reference program takes from the question."""
    found: list[str] = []
    for node in plan.nodes:
        match node:
            case Anchor():
                found.append(node.said)
            case Labelled() | Where():
                found.append(node.word)
            case Between():
                found += [str(node.low), str(node.high)]
            case Above():
                found.append(str(node.bound))
            case Convert():
                found.append(node.currency)
            case Later():
                found.append(str(node.days))
    return found


def says(question: str, text: str) -> bool:
    """Whether a question says a text, and not only as a part of a longer word or number."""
    at = question.find(text)
    while at >= 0:
        end = at + len(text)
        before, after = question[max(0, at - 2) : at], question[end : end + 2]
        if not _joins(before[-1:], before[:-1]) and not _joins(after[:1], after[1:]):
            return True
        at = question.find(text, at + 1)
    return False


def _joins(sign: str, next_but_one: str) -> bool:
    """Whether a sign makes a text go on: a letter, a digit, a hyphen, or a point or comma with a digit behind it."""
    return sign.isalnum() or sign == "-" or (sign in (".", ",") and next_but_one.isdigit())
