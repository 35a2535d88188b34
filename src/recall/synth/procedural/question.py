"""Saying what a plan asks for, in English: at least six ways for each operator, in one sentence or in several.

Every literal of the plan (a name, an id, a bound, a label, a currency) stands in the question as it is. What would be
ambiguous within one noun phrase becomes a sentence of its own and is then referred to: by its noun where that can be
nothing else, by a letter where it could.
"""

import random

from recall.synth.procedural import phrases
from recall.synth.procedural.discourse import Discourse
from recall.synth.procedural.english import a, beyond, comparative, in_time, superlative
from recall.synth.procedural.phrases import Ways
from recall.synth.procedural.plans import (
    Above,
    Anchor,
    Between,
    Both,
    Conditional,
    Hop,
    Labelled,
    Many,
    Members,
    One,
    Scalar,
    Targets,
    Top,
    Where,
    Whichever,
)
from recall.synth.procedural.scalars import (
    Acted,
    Called,
    Combine,
    Convert,
    Days,
    Later,
    Listed,
    Moved,
    Read,
    Rescale,
    Times,
    Total,
)

_CLAUSES = ("how ", "by how ", "what ", "which ")


class Voice(Discourse):
    """Says one plan."""

    def __init__(self, rng: random.Random, *, plain: bool = False, ids: bool = False) -> None:
        """Take how it is to be said.

        Args:
            rng: decides everything.
            plain: in one phrase of genitives.
            ids: entities are known by ids, so that it has to be said where a name is wanted.
        """
        super().__init__(rng)
        self.plain, self.ids = plain, ids
        self._operands = 0
        """How many constructions with two operands are open."""
        self._hops = 0
        """How many hops are open."""

    def question(self, plan: Scalar, *, unknowable: bool = False) -> str:
        """The whole question.

        Args:
            plan: what it asks for.
            unknowable: say what to answer where the tools do not suffice.
        """
        self._say(self._final(plan))
        clauses = [] if self.plain else self._form(plan)
        if unknowable:
            clauses.append(self._way(phrases.UNKNOWN))
        return " ".join([self.text(), *clauses])

    def _chance(self, share: float) -> bool:
        return not self.plain and self.rng.random() < share

    # The question itself

    def _final(self, plan: Scalar) -> str:
        if isinstance(plan, Acted | Moved):
            self._say(self._changed(plan))
            done = len(self._sentences)
            asked = self._final(plan.then)
            if len(self._sentences) == done:
                return self._way(phrases.AFTERWARDS).format(_lower(asked))
            first = self._sentences[done]
            self._sentences[done] = self._way(phrases.AFTERWARDS).format(_lower(first))
            return asked
        if isinstance(plan, Listed):
            return self._way(phrases.LISTS).format(self.many(plan.source))
        said = self.scalar(plan)
        if self.plain:
            return self._way(phrases.PLAIN_REQUESTS).format(said)
        return self._way(phrases.CLAUSE_REQUESTS if said.startswith(_CLAUSES) else phrases.REQUESTS).format(said)

    def _form(self, plan: Scalar) -> list[str]:
        """What form the answer should have, where that is not plain."""
        while isinstance(plan, Acted | Moved):
            plan = plan.then
        if isinstance(plan, Listed):
            keys = "ids" if plan.ids else "names"
            return [
                self._way((
                    f"Answer with a list of {keys}.", f"Give their {keys}, separated by semicolons.",
                    f"Answer with their {keys} as a JSON list.",
                ))
            ]  # fmt: skip
        if isinstance(plan, Called) and self.ids:
            return [self._way(("Give the name, not the id.", "Answer with its name.", "State it by name, not by id."))]
        kind = plan.kind
        if kind.answer.kind == "date" and not isinstance(plan, Days):
            return [self._way(("Answer as YYYY-MM-DD.", "Give the date as YYYY-MM-DD.", "Use the form YYYY-MM-DD."))]
        if kind.unit and not isinstance(plan, Convert | Rescale | Days) and self.rng.random() < 0.6:
            return [
                self._way((f"Answer in {kind.unit}.", f"Give the number in {kind.unit}.", f"State it in {kind.unit}."))
            ]
        return []

    def _changed(self, plan: Acted | Moved) -> str:
        if isinstance(plan, Moved):
            words = {"target": self.one(plan.target), "one": self.one(plan.changed), "noun": plan.link.noun}
            return self._way(phrases.MOVES).format(**words)
        states = plan.states
        if isinstance(plan.changed, One):
            what = self.one(plan.changed)
        else:
            assert isinstance(plan.changed, Where)
            what = f"every one of {self.many(plan.changed.source)} {states.phrase.format(plan.action.source)}"
        return self._way(phrases.ACTS).format(
            what=what, before=plan.action.source, after=plan.action.target, noun=states.noun,
            verb=plan.action.verb.replace("_", " ").capitalize(),
        )  # fmt: skip

    # Scalars

    def scalar(self, node: Scalar) -> str:
        """A noun phrase, or a clause that begins with `how`, `what` or `which`."""
        match node:
            case Read():
                return self._of(node.column.noun, node.source, genitive=not self._operands)
            case Called(source=Hop() as source):
                return self._of(source.link.noun, source.source)
            case Total():
                ways = phrases.TOTALS[1:] if "total" in node.column.noun else phrases.TOTALS
                ways = ways[:-1] if self._operands else ways
                return self._way(ways).format(noun=node.column.noun, many=self.many(node.source))
            case Times():
                return self._times(node)
            case Combine():
                return self._combined(node)
            case Days():
                return self._pair(phrases.DAYS, node.left, node.right)
            case Later():
                return self._way(phrases.LATER).format(days=node.days, day=self._operand(node.source))
            case Convert():
                return self._way(phrases.CONVERSIONS).format(source=self._operand(node.source), currency=node.currency)
            case Rescale():
                return self._way(phrases.RESCALES).format(source=self._operand(node.source), unit=node.kind.unit)
        raise TypeError(f"{type(node).__name__} cannot be said")

    def _operand(self, node: Scalar) -> str:
        """A noun phrase that stands among others."""
        self._operands += 1
        said = self.scalar(node)
        self._operands -= 1
        return said

    def _pair(self, ways: Ways, left: Scalar, right: Scalar) -> str:
        said = self._operand(left)
        if _same_column(left, right) and self.rng.random() < 0.3:
            assert isinstance(right, Read)
            return self._way(ways).format(left=said, right=f"that of {self._nested(right.source)}")
        return self._way(ways).format(left=said, right=self._operand(right))

    def _nested(self, node: One) -> str:
        self._operands += 1
        said = self.one(node)
        self._operands -= 1
        return said

    def _combined(self, node: Combine) -> str:
        ways = phrases.SUMS if node.sum else phrases.DIFFERENCES
        if self.plain:
            way = "the sum of {left} and {right}" if node.sum else "the difference of {left} and {right}"
            return way.format(left=self.scalar(node.left), right=self.scalar(node.right))
        return self._pair(ways, node.left, node.right)

    def _times(self, node: Times) -> str:
        self._operands += 1
        many, each = self.many(node.source), self.scalar(node.each)
        self._operands -= 1
        number = f"the number of {many.removeprefix('the ')}"
        return self._way(phrases.TIMES).format(number=number, each=each, many=many)

    # One entity

    def one(self, node: One) -> str:
        """A noun phrase for one entity."""
        if id(node) in self._known:
            return self._known[id(node)]
        match node:
            case Anchor():
                return self._anchor(node)
            case Hop():
                return self._hop(node)
            case Whichever():
                return self._whichever(node)
            case Conditional():
                return self._conditional(node)
            case Top():
                return self._top(node)
        raise TypeError(f"{type(node).__name__} cannot be said")

    def _anchor(self, node: Anchor) -> str:
        if node.by_id:
            return self._way((f"{node.entity.noun} {node.key}", f"the {node.entity.noun} with id {node.key}"))
        if self.plain or self.rng.random() < 0.6:
            return node.name
        return f"the {node.entity.noun} {node.name}"

    def _hop(self, node: Hop) -> str:
        deep = isinstance(node.source, Hop) and isinstance(node.source.source, Hop)
        if not isinstance(node.source, Anchor) and self._chance(0.3 if deep else 0.1):
            said = self._of(node.link.noun, node.source)
            return self._introduced(node, self._way(phrases.STEPS).format(one=said), node.link.noun, "that")
        self._hops += 1
        said = self._of(node.link.noun, node.source)
        self._hops -= 1
        return said

    def _of(self, noun: str, source: One, *, genitive: bool = True) -> str:
        said = self.one(source)
        short = isinstance(source, Anchor | Hop) and not said.startswith(("the ", "\x00")) and not said.endswith("s")
        if genitive and short and self.rng.random() < (0.5 if self.plain else 0.35):
            return f"{said}'s {noun}"
        return f"the {noun} of {said}"

    def _whichever(self, node: Whichever) -> str:
        apart = self._operands > 0 or self._hops > 2 or self._chance(0.5)
        words = {
            "left": self.one(node.left), "right": self.one(node.right), "noun": node.column.noun,
            "more": comparative(node.column.kind, larger=node.largest),
        }  # fmt: skip
        if not apart:
            return self._way(phrases.WHICHEVERS).format(**words)
        return self._introduced(
            node, self._way(phrases.WHICHEVERS_APART).format(**words), node.entity.noun, "the chosen"
        )

    def _conditional(self, node: Conditional) -> str:
        left = self._operand(node.left)
        right = self._operand(node.right)
        if _same_column(node.left, node.right) and self._chance(0.6):
            assert isinstance(node.right, Read)
            right = f"that of {self.one(node.right.source)}"
        said = self._way(phrases.CHOICES).format(
            left=left, right=right, then=self.one(node.then), otherwise=self.one(node.otherwise),
            more=comparative(node.left.kind, larger=True),
        )  # fmt: skip
        return self._introduced(node, said, node.entity.noun, "the chosen")

    def _top(self, node: Top) -> str:
        apart = self._operands > 0 or self._hops > 1 or self._chance(0.5)
        self._operands += 1
        many = self.many(node.source)
        self._operands -= 1
        simple = isinstance(node.source, Members) and isinstance(node.source.source, Anchor) and " wh" not in many
        words = {
            "many": many, "noun": node.column.noun,
            "most": superlative(node.column.kind, largest=node.largest),
        }  # fmt: skip
        if not apart:
            return self._way(phrases.TOPS if simple else phrases.TOPS[:1]).format(**words)
        return self._introduced(node, self._way(phrases.TOPS_APART).format(**words), node.entity.noun, "the chosen")

    # Several entities

    def many(self, node: Many, *, apart: bool = True) -> str:
        """A plural noun phrase for several entities, which begins with `the`, `these` or `those`.

        Args:
            node: stands for them.
            apart: they may be introduced by a sentence of their own.
        """
        if id(node) in self._known:
            return self._known[id(node)]
        match node:
            case Members():
                said = self._members(node)
            case Labelled():
                said = f"the {node.entity.plural} {self._labelled(node)}"
            case Between():
                said = self._between(node)
            case Where():
                return self._kept(node, node.source, self._labelled(node))
            case Above():
                return self._kept(node, node.source, self._bounded(node))
            case Both():
                return self._both(node)
            case Targets():
                return self._targets(node)
            case _:
                raise TypeError(f"{type(node).__name__} cannot be said")
        if apart and self._chance(0.3 if self._operands else 0.12):
            return self._introduced(node, self._way(phrases.SETS).format(many=said), node.entity.plural, "these")
        return said

    def _members(self, node: Members) -> str:
        one = self.one(node.source)
        short = isinstance(node.source, Anchor) or one.startswith("\x00")
        ways = list(phrases.MEMBERS if short else phrases.MEMBERS[:2])
        if short or node.link.inverse.endswith("{}"):
            ways += [node.link.inverse.replace("{}", "{one}")] * len(ways)
        said = self._way(ways).format(plural=node.entity.plural, noun=node.link.noun, one=one)
        return f"the {_whom(said, node)}"

    def _labelled(self, node: Labelled | Where) -> str:
        own = node.label.phrase.replace("{}", "{word}")
        said = self._way((own, own, *phrases.LABELLED)).format(noun=node.label.noun, word=node.word)
        return _whom(said, node)

    def _between(self, node: Between) -> str:
        kind = node.column.kind
        ways = phrases.BETWEEN_DAYS if in_time(kind) else phrases.BETWEEN
        return self._way(ways).format(
            plural=node.entity.plural, noun=node.column.noun, a_noun=a(node.column.noun), low=node.low, high=node.high,
            unit=f" {kind.unit}" if kind.unit else "", below=beyond(kind, above=False), above=beyond(kind, above=True),
        )  # fmt: skip

    def _bounded(self, node: Above) -> str:
        kind = node.column.kind
        said = self._way(phrases.BOUNDED).format(
            noun=node.column.noun, a_noun=a(node.column.noun), bound=node.bound,
            unit=f" {kind.unit}" if kind.unit else "", more=comparative(kind, larger=node.above),
            beyond=beyond(kind, above=node.above),
        )  # fmt: skip
        return _whom(said, node)

    def _kept(self, node: Many, source: Many, that: str) -> str:
        simple = isinstance(source, Members) and isinstance(source.source, Anchor) and not self._operands
        if simple and self._chance(0.5):
            return f"those of {self.many(source, apart=False)} {that}"
        said = self._way(phrases.KEEPS).format(many=self.many(source, apart=False), that=that)
        return self._introduced(node, said, node.entity.plural, self._way(("these", "those")))

    def _both(self, node: Both) -> str:
        left, right = self.many(node.left, apart=False), self.many(node.right, apart=False)
        words = {"left": left, "right": right, "plural": node.entity.plural}
        if self._operands or self._chance(0.3):
            said = self._way(phrases.BOTH_APART).format(**words)
            return self._introduced(node, said, node.entity.plural, "these")
        return self._way(phrases.BOTH).format(**words)

    def _targets(self, node: Targets) -> str:
        words = {
            "plural": node.entity.plural, "noun": node.link.noun, "many": self.many(node.source),
            "entity": node.entity.noun,
        }  # fmt: skip
        if self._operands or self._chance(0.5):
            said = self._way(phrases.TARGETS_APART).format(**words)
            unclear = node.entity is node.source.entity
            return self._introduced(node, said, node.entity.plural, "these", unclear=unclear)
        return self._way(phrases.TARGETS).format(**words)


def _same_column(left: Scalar, right: Scalar) -> bool:
    return isinstance(left, Read) and isinstance(right, Read) and left.column is right.column


def _whom(text: str, node: Many) -> str:
    """Persons are referred to as such."""
    return text.replace("for which", "for whom") if node.entity.named == "person" else text


def _lower(text: str) -> str:
    return text if text.startswith("I ") else text[0].lower() + text[1:]
