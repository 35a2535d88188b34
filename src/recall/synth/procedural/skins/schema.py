"""What a skin is made of: the types of entity of a domain, their fields, labels, links, states and moves.

A skin gives words to a world and says nothing about its size or its rows. Nouns stand in phrases like `the page count
of Orvel Compass`, `the total page count of the books written by Mira Tolen`, `the books whose genre is satire`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from recall.synth.procedural.kinds import Kind, enumeration
from recall.synth.procedural.names import Named


@dataclass(frozen=True, slots=True)
class Field:
    """A value that each entity of a type has."""

    name: str
    """Its snake_case name, unique within the entity."""
    noun: str
    """What it is called: `the {noun} of Orvel Compass`."""
    kind: Kind
    """The kind of its values."""


@dataclass(frozen=True, slots=True)
class Label:
    """One of a few words that each entity of a type bears."""

    name: str
    """Its snake_case name, unique within the entity."""
    noun: str
    """What it is called: `the {noun} of Orvel Compass`."""
    values: tuple[str, ...]
    """The words."""
    phrase: str
    """Says it of entities: `whose genre is {}`."""

    @property
    def kind(self) -> Kind:
        """The kind of its values."""
        return enumeration(self.name, self.values)


@dataclass(frozen=True, slots=True)
class Link:
    """A function from the entities of a type to those of another or the same: many to one."""

    name: str
    """Its snake_case name, unique within the entity."""
    noun: str
    """What it is called: `the {noun} of Orvel Compass`."""
    to: str
    """The name of the entity type that it leads to."""
    inverse: str
    """The plural noun phrase of what leads to a target: `books written by {}`."""


@dataclass(frozen=True, slots=True)
class Action:
    """A change of state, such as lending: from one state to another."""

    verb: str
    """Its snake_case imperative, unique among the verbs of the entity."""
    source: str
    """The state that it needs; `from` in the file."""
    target: str
    """The state that it leaves; `to` in the file."""


@dataclass(frozen=True, slots=True)
class States:
    """The states of an entity of a type, and what leads from one to another."""

    field: str
    """The snake_case name of the state, unique within the entity."""
    noun: str
    """What it is called: `the {noun} of Orvel Compass`."""
    values: tuple[str, ...]
    """The states."""
    actions: tuple[Action, ...]
    """The changes that tools may make."""
    phrase: str
    """Says it of entities: `whose status is {}`."""

    @property
    def kind(self) -> Kind:
        """The kind of the state."""
        return enumeration(self.field, self.values)


@dataclass(frozen=True, slots=True)
class Move:
    """A link that tools may point elsewhere."""

    link: str
    """The link's name."""
    verb: str
    """Its snake_case imperative, unique among the verbs of the entity."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A type of entity."""

    name: str
    """Its snake_case singular, unique within the skin."""
    noun: str
    """What one is called."""
    plural: str
    """What several are called."""
    named: Named
    """How its display names are drawn."""
    fields: tuple[Field, ...]
    """Its values."""
    labels: tuple[Label, ...] = ()
    """Its labels."""
    links: tuple[Link, ...] = ()
    """What it leads to."""
    states: States | None = None
    """Its states, where tools may change them."""
    moves: tuple[Move, ...] = ()
    """Its links that tools may change."""

    @property
    def words(self) -> tuple[str, ...]:
        """The names of its fields, labels, links and state, in this order."""
        state = (self.states.field,) if self.states else ()
        return (*(part.name for group in (self.fields, self.labels, self.links) for part in group), *state)


@dataclass(frozen=True, slots=True)
class Skin:
    """The words of a domain."""

    name: str
    """Its snake_case name, that of its file."""
    language: str
    """The invented language that its names are drawn in."""
    entities: tuple[Entity, ...]
    """Its types of entity, connected by links."""

    def entity(self, name: str) -> Entity:
        """The type of entity of this name.

        Raises:
            KeyError: there is none.
        """
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise KeyError(name)

    @property
    def links(self) -> Iterator[tuple[Entity, Link]]:
        """Every link with the entity that has it."""
        return ((entity, link) for entity in self.entities for link in entity.links)
