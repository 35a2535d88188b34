"""Saying what a plan asks for, in English: at least six ways for each operator, in one sentence or in several.

Every literal of the plan (a name, an id, a bound, a label, a currency) stands in the question as it is. What would be
ambiguous within one noun phrase becomes a sentence of its own, and is then referred to.
"""

import random
from collections.abc import Sequence

from recall.synth.procedural.kinds import Kind
from recall.synth.procedural.plans import (
    Above,
    Acted,
    Anchor,
    Between,
    Both,
    Called,
    Combine,
    Conditional,
    Convert,
    Days,
    EachTimes,
    Hop,
    Labelled,
    Listed,
    Many,
    Members,
    Moved,
    One,
    Read,
    Scalar,
    Targets,
    Top,
    Total,
    Where,
    Whichever,
)

Ways = tuple[str, ...]

REQUESTS: Ways = (
    "What is {}?", "Find {}.", "Tell me {}.", "Give {}.", "I need {}.", "Work out {}.", "Please determine {}.",
    "Can you find out {}?", "Report {}.",
)  # fmt: skip
PLAIN_REQUESTS: Ways = ("What is {}?", "Find {}.", "Tell me {}.")
LISTS: Ways = (
    "List {}.", "Which are {}? List them all.", "Name {}.", "Give me a list of {}.", "I need a full list of {}.",
    "Find all of {} and list them.", "Enumerate {}.",
)  # fmt: skip
_TOTALS: Ways = (
    "the total {noun} of {many}", "the sum of the {noun} over {many}", "the combined {noun} of {many}",
    "what {many} come to in {noun}, added up", "the {noun} of {many} taken together",
    "the overall {noun} across {many}", "the result of adding up the {noun} of each of {many}",
)  # fmt: skip
_CHARGES: Ways = (
    "what a fee of {factor} credits for each of {many} comes to",
    "the whole bill in credits if each of {many} is charged {factor} credits",
    "how many credits are due in all when every one of {many} costs {factor} credits",
    "the amount collected when {factor} credits are asked for each of {many}",
    "the sum in credits of a levy of {factor} credits on each of {many}",
    "the cost in credits of granting {factor} credits to each of {many}",
)
_SUMS: Ways = (
    "the sum of {left} and {right}", "{left} plus {right}", "{left} and {right} added together",
    "what {left} and {right} make together", "the total of {left} and {right}", "{left} added to {right}",
)  # fmt: skip
_DIFFERENCES: Ways = (
    "the difference between {left} and {right}", "by how much {left} and {right} differ",
    "how far {left} and {right} are apart", "the gap between {left} and {right}",
    "the absolute difference of {left} and {right}", "how much separates {left} from {right}",
)  # fmt: skip
_DAYS: Ways = (
    "the number of days between {left} and {right}", "how many days lie between {left} and {right}",
    "the days from {left} to {right}, whichever comes first", "how many days apart {left} and {right} are",
    "the distance in days between {left} and {right}", "how many days separate {left} from {right}",
)  # fmt: skip
_CONVERSIONS: Ways = (
    "{source}, converted into {currency} and rounded to two decimals",
    "how much {source} is in {currency}, to two decimals", "what {source} comes to in {currency}, to two decimals",
    "the worth in {currency} of {source}, rounded to two decimals",
    "{source} expressed in {currency} with two decimals",
    "the amount of {currency}, rounded to two decimals, that {source} buys",
)  # fmt: skip
_TOPS: Ways = (
    "the one of {many} with the {most} {noun}", "whichever of {many} has the {most} {noun}",
    "that one of {many} whose {noun} is the {most}", "the one with the {most} {noun} among {many}",
)  # fmt: skip
_TOP_SENTENCES: Ways = (
    "Among {many}, pick the one with the {most} {noun}.", "Look at {many} and take the one whose {noun} is the {most}.",
    "Of {many}, one has the {most} {noun}.", "Consider the one of {many} with the {most} {noun}.",
)  # fmt: skip
_KEEPS: Ways = (
    "Take {many} and keep those {that}.", "Look at {many}, but only at those {that}.",
    "Of {many}, consider those {that}.",
    "Start from {many} and leave out all but those {that}.", "Among {many}, only those {that} matter.",
    "Consider {many}, restricted to those {that}.",
)  # fmt: skip
_CHOICES: Ways = (
    "If {left} is {more} than {right}, look at {then}; otherwise at {otherwise}.",
    "Check whether {left} is {more} than {right}: if so, go on with {then}, if not, with {otherwise}.",
    "Choose {then} if {left} is {more} than {right}, and {otherwise} if it is not.",
    "Is {left} {more} than {right}? Then take {then}, else {otherwise}.",
    "Depending on whether {left} is {more} than {right}, the one in question is {then} or {otherwise}, in this order.",
    "When {left} turns out {more} than {right}, use {then}; when it does not, use {otherwise}.",
)
_WHICHEVER: Ways = (
    "whichever of {left} and {right} has the {more} {noun}", "the one of {left} and {right} with the {more} {noun}",
    "{left} or {right}, whichever has the {more} {noun},", "that one of {left} and {right} whose {noun} is {more}",
    "the {more} of {left} and {right} by {noun}", "either {left} or {right}, the one with the {more} {noun},",
)  # fmt: skip
_MOVES: Ways = (
    "First make {target} the {noun} of {one}.", "Set the {noun} of {one} to {target}.",
    "Give {one} a new {noun}: {target}.", "Change the {noun} of {one} to {target}.",
    "See to it that the {noun} of {one} is {target}.", "Let {target} be the {noun} of {one} from now on.",
)  # fmt: skip
_ACTS: Ways = (
    "Change {what} from {before} to {after}.", "First, change {what} from {before} to {after}.",
    "Turn the {noun} of {what} from {before} to {after}.", "{verb} {what}, so that the {noun} becomes {after}.",
    "See to it that the {noun} of {what} goes from {before} to {after}.", "{verb} {what}: from {before} to {after}.",
)  # fmt: skip
_AFTERWARDS: Ways = (
    "Then: {}",
    "After that: {}",
    "Once that is done: {}",
    "With this in place: {}",
    "Afterwards: {}",
    "Next: {}",
)
UNKNOWABLE = "cannot be determined"
"""The answer where a tool that is needed is missing."""
UNKNOWN_CLAUSES: Ways = (
    "If the tools cannot tell, answer: cannot be determined.",
    "Should it be impossible to find out, say: cannot be determined.",
    "Where no tool gives what is needed, the answer is: cannot be determined.",
)


class Voice:
    """Says one plan."""

    def __init__(self, rng: random.Random, *, plain: bool = False) -> None:
        self.rng, self.plain = rng, plain
        self.sentences: list[str] = []
        """What is said before the question."""

    def question(self, plan: Scalar, *, unknowable: bool = False) -> str:
        """The whole question.

        Args:
            plan: what it asks for.
            unknowable: say what to answer where the tools do not suffice.
        """
        final = self._final(plan)
        clauses = [] if self.plain else self._form(plan)
        if unknowable:
            clauses.append(self.rng.choice(UNKNOWN_CLAUSES))
        text = " ".join([*self.sentences, final, *clauses])
        return text.replace(",.", ".").replace(",?", "?").replace(",,", ",").replace(",:", ":")

    def _final(self, plan: Scalar) -> str:
        if isinstance(plan, Acted | Moved):
            self.sentences.append(self._changed(plan))
            asked = self._final(plan.then)
            return self._say(_AFTERWARDS).format(_lower(asked)) if not self.sentences[1:] else asked
        if isinstance(plan, Listed):
            return self._say(LISTS).format(self.many(plan.source))
        said = self.scalar(plan)
        if self.plain:
            return self._say(PLAIN_REQUESTS).format(said)
        if said.startswith(("how ", "by how ", "what ")):
            return self._say(
                ("Find out {}.", "Tell me {}.", "I need to know {}.", "Work out {}.", "Please determine {}.")
            ).format(said)
        return self._say(REQUESTS).format(said)

    def _form(self, plan: Scalar) -> list[str]:
        """What form the answer should have."""
        while isinstance(plan, Acted | Moved):
            plan = plan.then
        if isinstance(plan, Listed):
            keys = "ids" if plan.ids else "names"
            return [
                self._say(
                    (
                        f"Answer with a list of {keys}.",
                        f"Give their {keys}, separated by semicolons.",
                        f"Answer with their {keys} as a JSON list.",
                    )
                )
            ]
        kind = plan.kind
        if isinstance(plan, Convert | Days):
            return []
        if kind.answer.kind == "date":
            return [self._say(("Answer as YYYY-MM-DD.", "Give the date as YYYY-MM-DD.", "Use the form YYYY-MM-DD."))]
        if kind.unit and not isinstance(plan, EachTimes) and self.rng.random() < 0.6:
            return [
                self._say((f"Answer in {kind.unit}.", f"Give the number in {kind.unit}.", f"State it in {kind.unit}."))
            ]
        return []

    def _changed(self, plan: Acted | Moved) -> str:
        if isinstance(plan, Moved):
            words = {"target": self.one(plan.target), "one": self.one(plan.changed), "noun": plan.link.noun}
            return self._say(_MOVES).format(**words)
        states = plan.states
        if isinstance(plan.changed, One):
            what = self.one(plan.changed)
        else:
            assert isinstance(plan.changed, Where)
            what = f"every one of {self.many(plan.changed.source)} {states.phrase.format(plan.action.source)}"
        verb = plan.action.verb.replace("_", " ").capitalize()
        words = {
            "what": what,
            "before": plan.action.source,
            "after": plan.action.target,
            "noun": states.noun,
            "verb": verb,
        }
        return self._say(_ACTS).format(**words)

    def scalar(self, node: Scalar) -> str:
        """A noun phrase, or a clause that begins with `how` or `what`."""
        match node:
            case Read():
                return self._of(node.column.noun, node.source)
            case Called():
                return self.one(node.source)
            case Total():
                return self._say(_TOTALS).format(noun=node.column.noun, many=self.many(node.source))
            case EachTimes():
                return self._say(_CHARGES).format(factor=node.factor, many=self.many(node.source))
            case Combine():
                ways = _SUMS if node.sum else _DIFFERENCES
                if self.plain:
                    ways = ("the sum of {left} and {right}",) if node.sum else ("the difference of {left} and {right}",)
                return self._say(ways).format(left=self.scalar(node.left), right=self.scalar(node.right))
            case Days():
                return self._say(_DAYS).format(left=self.scalar(node.left), right=self.scalar(node.right))
            case Convert():
                source = self.scalar(node.source)
                conversions = _CONVERSIONS[:1] if source.startswith("what ") else _CONVERSIONS
                return self._say(conversions).format(source=source, currency=node.currency)
        raise TypeError(f"{type(node).__name__} cannot be said")

    def one(self, node: One) -> str:
        """A noun phrase for one entity."""
        match node:
            case Anchor():
                return self._anchor(node)
            case Hop():
                return self._of(node.link.noun, node.source)
            case Whichever():
                return self._say(_WHICHEVER).format(
                    left=self.one(node.left), right=self.one(node.right), noun=node.column.noun,
                    more=comparative(node.column.kind, larger=node.largest),
                )  # fmt: skip
            case Conditional():
                left, right = self.scalar(node.left), self.scalar(node.right)
                said = self._say(_CHOICES).format(
                    left=left, right=right, then=self.one(node.then), otherwise=self.one(node.otherwise),
                    more=comparative(node.left.kind, larger=True),
                )  # fmt: skip
                self.sentences.append(said)
                return f"the chosen {node.entity.noun}"
            case Top():
                words = {
                    "many": self.many(node.source),
                    "noun": node.column.noun,
                    "most": superlative(node.column.kind, largest=node.largest),
                }
                if self.rng.random() < 0.5:
                    return self._say(_TOPS).format(**words)
                self.sentences.append(self._say(_TOP_SENTENCES).format(**words))
                return self._say((f"that {node.entity.noun}", f"this {node.entity.noun}"))
        raise TypeError(f"{type(node).__name__} cannot be said")

    def many(self, node: Many) -> str:
        """A plural noun phrase for several entities."""
        match node:
            case Members():
                return f"the {node.link.inverse.format(self.one(node.source))}"
            case Labelled():
                start = self._say(("the {}", "all {}", "all the {}")).format(node.entity.plural)
                return f"{start} {node.label.phrase.format(node.word)}"
            case Between():
                unit = f" {node.column.kind.unit}" if node.column.kind.unit else ""
                way = self._say((
                    "the {plural} whose {noun} lies between {low} and {high}{unit}",
                    "all {plural} with a {noun} from {low} to {high}{unit}",
                    "the {plural} with a {noun} of at least {low} and at most {high}{unit}",
                    "all {plural} whose {noun} is not below {low} and not above {high}{unit}",
                    "the {plural} in the range of {low} to {high}{unit} by {noun}",
                    "those {plural} that have a {noun} between {low} and {high}{unit}",
                ))  # fmt: skip
                return way.format(
                    plural=node.entity.plural, noun=node.column.noun, low=node.low, high=node.high, unit=unit
                )
            case Where():
                return self._kept(node, node.source, node.label.phrase.format(node.word))
            case Above():
                unit = f" {node.column.kind.unit}" if node.column.kind.unit else ""
                more = comparative(node.column.kind, larger=node.above)
                return self._kept(node, node.source, f"whose {node.column.noun} is {more} than {node.bound}{unit}")
            case Both():
                return f"{self.many(node.left)} that are also among {self.many(node.right)}"
            case Targets():
                way = self._say((
                    "the different {plural} that are the {noun} of any of {many}",
                    "all {plural} that are the {noun} of at least one of {many}, each counted once",
                    "the {plural}, each only once, that {many} have as {noun}",
                    "every distinct {noun} among {many}",
                ))  # fmt: skip
                return way.format(plural=node.entity.plural, noun=node.link.noun, many=self.many(node.source))
        raise TypeError(f"{type(node).__name__} cannot be said")

    def _kept(self, node: Many, source: Many, that: str) -> str:
        simple = isinstance(source, Members) and isinstance(source.source, Anchor)
        if simple and self.rng.random() < 0.5:
            return f"those of {self.many(source)} {that}"
        self.sentences.append(self._say(_KEEPS).format(many=self.many(source), that=that))
        return self._say(
            (f"these {node.entity.plural}", f"those {node.entity.plural}", f"the {node.entity.plural} that remain")
        )

    def _of(self, noun: str, source: One) -> str:
        said = self.one(source)
        genitive = isinstance(source, Anchor | Hop) and not said.startswith("the ") and not said.endswith(("s", ","))
        if genitive and self.rng.random() < (0.5 if self.plain else 0.35):
            return f"{said}'s {noun}"
        return f"the {noun} of {said}"

    def _anchor(self, node: Anchor) -> str:
        if node.by_id:
            return self._say((f"{node.entity.noun} {node.key}", f"the {node.entity.noun} with id {node.key}"))
        if self.plain or self.rng.random() < 0.6:
            return node.name
        return f"the {node.entity.noun} {node.name}"

    def _say(self, ways: Sequence[str]) -> str:
        return self.rng.choice(ways)


def superlative(kind: Kind, *, largest: bool) -> str:
    """How the extreme of a kind is called."""
    if kind.answer.kind == "date" or kind.json == "string":
        return "latest" if largest else "earliest"
    return "highest" if largest else "lowest"


def comparative(kind: Kind, *, larger: bool) -> str:
    """How the more extreme of two values is called."""
    if kind.answer.kind == "date" or kind.json == "string":
        return "later" if larger else "earlier"
    return "higher" if larger else "lower"


def literals(plan: Scalar) -> list[str]:
    """What the question must say as it is."""
    found: list[str] = []
    for node in plan.walk():
        match node:
            case Anchor():
                found.append(node.key if node.by_id else node.name)
            case Labelled() | Where():
                found.append(node.word)
            case Between():
                found += [str(node.low), str(node.high)]
            case Above():
                found.append(str(node.bound))
            case EachTimes():
                found.append(str(node.factor))
            case Convert():
                found.append(node.currency)
            case Acted():
                found += [node.action.source, node.action.target]
    return found


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
