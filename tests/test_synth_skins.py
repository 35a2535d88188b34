"""Kinds of value, invented names, and the skins that dress worlds."""

import math
import pickle
import random
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from importlib import resources
from itertools import combinations, islice
from pathlib import Path

import pytest

from recall.errors import ConfigError
from recall.synth.procedural import names, skins
from recall.synth.procedural.kinds import ANSWERABLE_BITS, KINDS, Kind, convert, enumeration, exact
from recall.synth.procedural.names import LANGUAGES, NAMED, Named
from recall.synth.procedural.skins.reader import parse

DRAWS = 4000
SKINS = [skins.load(name) for name in skins.NAMES]


def draws_of(kind: Kind, seed: int = 0, count: int = DRAWS) -> list[str | int | float]:
    rng = random.Random(seed)
    return [kind.draw(rng) for _ in range(count)]


# Kinds


def test_there_are_about_eighty_kinds_and_each_knows_its_name() -> None:
    assert len(KINDS) >= 80
    assert all(name == kind.name for name, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_draw_is_a_pure_function_of_the_generator(kind: Kind) -> None:
    assert draws_of(kind, seed=3, count=50) == draws_of(pickle.loads(pickle.dumps(kind)), seed=3, count=50)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_entropy_that_a_kind_claims_is_that_of_its_draws(kind: Kind) -> None:
    """By the share of pairs of draws that agree: at most 2^-bits of them for even draws, somewhat more for uneven."""
    values = draws_of(kind)
    pairs = sum(times * (times - 1) for times in Counter(values).values())
    expected = DRAWS * (DRAWS - 1) * 2**-kind.bits
    assert pairs <= 4 * expected + 40
    if expected > 400:  # enough pairs agree to measure the other side
        assert pairs >= expected / 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.answerable], ids=lambda kind: kind.name)
def test_no_value_of_an_answerable_kind_is_common(kind: Kind) -> None:
    assert kind.bits >= ANSWERABLE_BITS
    (_, most), *_ = Counter(draws_of(kind)).most_common(1)
    assert most / DRAWS < 0.01


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_values_have_the_type_and_the_decimals_that_their_kind_says(kind: Kind) -> None:
    python = {"integer": int, "number": float, "string": str, "boolean": bool}[kind.json]
    values = draws_of(kind, count=300)
    assert all(type(value) is python for value in values)
    for value in values:
        if isinstance(value, float):
            assert exact(value) * 10**kind.places % 1 == 0
    assert (kind.answer.tolerance > 0) == (kind.json == "number")
    assert kind.ordered or not kind.additive


def test_strings_of_an_ordered_kind_sort_by_what_they_mean() -> None:
    for kind in KINDS.values():
        if kind.ordered and kind.json == "string":
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\d|\d\d:\d\d(:\d\d)?", str(v)) for v in draws_of(kind, count=100))


def dimensions() -> dict[str, list[Kind]]:
    found: dict[str, list[Kind]] = {}
    for kind in KINDS.values():
        if kind.dimension:
            found.setdefault(kind.dimension, []).append(kind)
    return found


def test_conversions_are_exact_there_and_back_and_one_way_of_them_is_a_short_decimal() -> None:
    for kinds in dimensions().values():
        for one, other in combinations(kinds, 2):
            factor = one.scale / other.scale
            assert any(ratio * 10**6 % 1 == 0 for ratio in (factor, 1 / factor)), (one.name, other.name)
            for value in draws_of(one, count=5):
                assert not isinstance(value, str)
                assert convert(value, one, other) * other.scale == exact(value) * one.scale


def test_kinds_of_one_dimension_and_scale_have_one_unit() -> None:
    for kinds in dimensions().values():
        by_scale: dict[Fraction, set[str]] = {}
        for kind in kinds:
            by_scale.setdefault(kind.scale, set()).add(kind.unit)
        assert all(len(units) == 1 for units in by_scale.values())


def test_some_known_conversions() -> None:
    assert convert(1.5, KINDS["tonnes_1"], KINDS["kilograms"]) == 1500
    assert convert(10, KINDS["metres_a_second"], KINDS["kilometres_an_hour"]) == 36
    assert convert(0.1, KINDS["kilometres_1"], KINDS["metres"]) == 100
    with pytest.raises(ValueError, match="litres does not convert into metres"):
        convert(1, KINDS["litres"], KINDS["metres"])


def test_a_label_is_no_answer() -> None:
    kind = enumeration("genre", ("satire", "memoir"))
    assert not kind.answerable
    assert kind.bits == 1
    assert set(draws_of(kind, count=50)) == {"satire", "memoir"}


# Names


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", NAMED)
def test_names_do_not_collide_and_there_are_a_million_of_them(style: Named, language: str) -> None:
    assert names.bits(style, language) >= 20
    rng, taken = random.Random(1), set[str]()
    for _ in range(2000):
        taken.add(names.draw(style, rng, taken=taken, language=language))
    assert len({name.casefold() for name in taken}) == 2000
    assert len({names.draw(style, rng, language=language) for _ in range(1000)}) > 990


def test_names_have_the_words_of_their_style() -> None:
    rng = random.Random(2)
    patterns: dict[Named, str] = {
        "person": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "place": r"[A-Z][a-z]+",
        "thing": rf"[A-Z][a-z]+ ({'|'.join(names.THING_NOUNS)})",
        "code": r"[A-Z]{2}-\d{4}",
    }
    for style, pattern in patterns.items():
        for language in LANGUAGES:
            assert all(
                re.fullmatch(pattern, names.draw(style, random.Random(seed), language=language)) for seed in range(50)
            )
    assert names.draw("person", rng) != names.draw("person", rng)


@pytest.mark.parametrize("style", NAMED)
def test_a_decoy_is_another_name_that_begins_the_same(style: Named) -> None:
    rng, taken = random.Random(3), set[str]()
    for language in LANGUAGES:
        for _ in range(50):
            name = names.draw(style, rng, taken=taken, language=language)
            decoy = names.decoy_of(rng, name, taken=taken)
            assert decoy != name
            assert decoy not in taken
            shared = name.index(" ") if style in ("person", "thing") else len(name) // 2
            assert decoy[:shared] == name[:shared]
            taken |= {name, decoy}


def test_even_a_name_without_room_for_decoys_gets_many() -> None:
    rng, taken = random.Random(4), {"?", "Ab", "Orvel Compass"}
    for name in ("?", "Ab", "Orvel Compass"):
        for _ in range(200):
            taken.add(names.decoy_of(rng, name, taken=taken))
    assert len(taken) == 603


# Skins


def chains(skin: skins.Skin, start: str, seen: frozenset[str] = frozenset()) -> Iterator[int]:
    """The lengths in links of the walks from a type of entity that come to no type twice."""
    yield len(seen)
    for link in skin.entity(start).links:
        if link.to not in seen | {start}:
            yield from chains(skin, link.to, seen | {start})


def test_every_file_is_a_skin_and_every_skin_a_file() -> None:
    files = {file.name for file in resources.files(skins).iterdir() if file.name.endswith(".toml")}
    assert files == {f"{name}.toml" for name in (*skins.NAMES, *skins.PLAIN)}
    assert all(skin.name == name for skin, name in zip(SKINS, skins.NAMES, strict=True))


def test_there_are_skins_enough_and_some_are_held_out() -> None:
    assert len(set(skins.NAMES)) == len(skins.NAMES) >= 28
    assert len(set(skins.HELD_OUT)) == 5
    assert set(skins.HELD_OUT) < set(skins.NAMES)


@pytest.mark.parametrize("skin", SKINS, ids=lambda skin: skin.name)
def test_a_skin_is_rich_enough(skin: skins.Skin) -> None:
    assert 5 <= len(skin.entities) <= 8
    for entity in skin.entities:
        where = f"{skin.name}: {entity.name}"
        assert 4 <= len(entity.fields) <= 7, where
        assert sum(field.kind.answerable for field in entity.fields) >= 3, where
        assert any(field.kind.answerable and field.kind.additive for field in entity.fields), where
        assert len(entity.labels) <= 2, where
        assert all(3 <= len(label.values) <= 6 for label in entity.labels), where
        assert entity.links, where
    dated = [e for e in skin.entities if any(field.kind.answer.kind == "date" for field in e.fields)]
    assert len(dated) >= len(skin.entities) - 2
    assert len({field.kind.dimension for entity in skin.entities for field in entity.fields} - {""}) >= 3
    assert sum(entity.states is not None for entity in skin.entities) >= 3
    assert any(entity.moves for entity in skin.entities)


@pytest.mark.parametrize("skin", SKINS, ids=lambda skin: skin.name)
def test_links_make_chains_of_four_and_some_lead_back(skin: skins.Skin) -> None:
    assert max(length for entity in skin.entities for length in chains(skin, entity.name)) >= 4
    assert sum(link.to == entity.name for entity, link in skin.links) >= 2


@pytest.mark.parametrize("skin", SKINS, ids=lambda skin: skin.name)
def test_nouns_read_within_a_sentence(skin: skins.Skin) -> None:
    for entity in skin.entities:
        state = [entity.states.noun] if entity.states else []
        for noun in [*(part.noun for group in (entity.fields, entity.labels, entity.links) for part in group), *state]:
            assert not noun.startswith(("a ", "an ", "the ", "highest ", "total ")), noun
            assert not noun.endswith("?"), noun
        plurals = [link.inverse for other, link in skin.links if other is entity]
        assert all(inverse.startswith(entity.plural) for inverse in plurals), plurals


def test_no_two_skins_share_many_words() -> None:
    def words(skin: skins.Skin) -> tuple[set[str], set[str]]:
        nouns = {e.noun for e in skin.entities} | {field.noun for e in skin.entities for field in e.fields}
        return nouns, {word for e in skin.entities for word in (e.name, *(field.name for field in e.fields))}

    for one, other in combinations(SKINS, 2):
        for left, right in zip(words(one), words(other), strict=True):
            assert len(left & right) <= 0.15 * min(len(left), len(right)), (one.name, other.name, left & right)


def test_every_kind_and_every_language_is_spoken() -> None:
    used = {field.kind.name for skin in SKINS for entity in skin.entities for field in entity.fields}
    assert set(KINDS) - used <= {"flag", "thing_name"}
    assert {skin.language for skin in SKINS} | {"plain"} == set(LANGUAGES)


def test_plain_skins_share_no_word_with_the_one_held_out() -> None:
    *trained, held_out = (skins.load(name) for name in skins.PLAIN)
    words = {word for skin in trained for entity in skin.entities for word in entity.words}
    assert not words & {word for entity in held_out.entities for word in entity.words}


def test_skins_are_equal_when_read_again(tmp_path: Path) -> None:
    text = resources.files(skins).joinpath("library.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert skins.read(tmp_path / "mine.toml") == skins.load("library")
    assert skins.load("library") is skins.load("library")


GOOD = """
name = "harbour"
language = "tesk"

[[entity]]
name = "boat"
plural = "boats"
named = "thing"
fields = [{ name = "keel_length", kind = "metres_2" }]
labels = [{ name = "rig", values = ["sloop", "ketch"] }]
links = [{ name = "owner", to = "sailor", inverse = "boats owned by {}" }]
states = { field = "berth", values = ["moored", "away"], actions = [{ verb = "moor", from = "away", to = "moored" }] }
moves = [{ link = "owner", verb = "sell" }]

[[entity]]
name = "sailor"
plural = "sailors"
named = "person"
fields = [{ name = "sea_pay", kind = "fee" }]
"""


def test_a_skin_of_ones_own_needs_little() -> None:
    skin = parse(GOOD, "harbour.toml")
    boat = skin.entity("boat")
    assert (boat.noun, boat.fields[0].noun, boat.labels[0].phrase) == ("boat", "keel length", "whose rig is {}")
    assert boat.words == ("keel_length", "rig", "owner", "berth")
    assert boat.states is not None
    assert boat.states.kind.bits == 1
    with pytest.raises(KeyError):
        skin.entity("whale")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"metres_2"',
            '"meters_2"',
            "entity boat: field keel_length: kind = 'meters_2': the nearest known ones are metres_2",
        ),
        ('to = "sailor"', 'to = "sailer"', "entity boat: link owner: to = 'sailer': it takes one of boat, sailor"),
        (
            "owned by {}",
            "owned",
            "entity boat: link owner: inverse = 'boats owned': it takes a phrase with {} in it once",
        ),
        ("owned by {}", "{} owned by {}", "with {} in it once"),
        ("owned by {}", "owned by {} {x}", "with {} in it once"),
        ('language = "tesk"', 'language = "welsh"', "harbour.toml: language = 'welsh': it takes one of orvel, tesk"),
        ('named = "thing"', 'named = "boat"', "named = 'boat': it takes one of person, place, thing, code"),
        ('name = "keel_length"', 'name = "keel length"', "it takes a snake_case name such as page_count"),
        ('name = "keel_length"', 'name = "class"', "field class: name = 'class': it takes a snake_case name"),
        ('name = "keel_length"', 'name = "id"', "and is not id, name, type"),
        ('name = "rig"', 'name = "owner"', "entity boat: 'owner' is a field, label, link or state twice"),
        ('name = "rig"', 'name = "rig", noun = "owner"', "entity boat: 'owner' is the noun of one twice"),
        ('["sloop", "ketch"]', '["sloop"]', "label rig: values = ['sloop']: it takes a list of at least two texts"),
        ('["sloop", "ketch"]', '["sloop", "Sloop"]', "all different"),
        ('["sloop", "ketch"]', '["sloop", 2]', "it takes a list of at least two texts"),
        ('from = "away"', 'from = "sunk"', "states berth: action moor: from = 'sunk': it takes one of moored, away"),
        ('from = "away"', 'from = "moored"', "from and to are both 'moored'; an action changes the state"),
        ('verb = "sell"', 'verb = "moor"', "entity boat: 'moor' is a verb twice"),
        ('link = "owner"', 'link = "keel_length"', "move sell: link = 'keel_length': it takes one of owner"),
        ('plural = "boats"', 'plural = "Boats"', "plural = 'Boats': it takes words of the letters a to z"),
        ('plural = "boats"\n', "", "entity boat: plural is missing; it takes text"),
        ('plural = "sailors"', 'plural = "boats"', "'boats' is the plural of one twice"),
        ('named = "person"', 'named = "person"\ncolour = "red"', "entity sailor: colour: unknown key"),
        ('name = "sea_pay"', 'name = ""', "it takes text that is not empty"),
        ('"fee"', '"age"', "entity sailor: fields: no kind among them can be an answer; give it one such as credits"),
        ('to = "sailor"', 'to = "boat"', "entity sailor: no chain of links joins it with boat"),
        ('name = "harbour"', 'name = "harbour', "not valid TOML"),
        ("fields = [{ name", "fields = 3 # [{ name", "entity boat: fields: it takes a list of at least 1 tables"),
        ("states = {", "states = 3 # {", "entity boat: states: it takes a table"),
    ],
)
def test_a_bad_skin_is_told_what_is_wrong_in_one_line(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as failure:
        parse(GOOD.replace(old, new, 1), "harbour.toml")
    text = str(failure.value)
    assert text.startswith("harbour.toml: ")
    assert message in text
    assert "\n" not in text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    for name, message in (("none.toml", "no such skin file"), ("bytes.toml", "not UTF-8 text at byte 0")):
        with pytest.raises(ConfigError, match=message):
            skins.read(tmp_path / name)
    with pytest.raises(ConfigError, match="'atlantis': no such skin; there are library, clinic"):
        skins.load("atlantis")


def test_no_function_of_a_public_benchmark_is_among_the_words() -> None:
    """A sample of the names of BFCL, tau-bench and API-Bank: none of their tools may come out of a verb and a type."""
    forbidden = {
        "cancel_reservation", "book_reservation", "cancel_order", "place_order", "return_order", "exchange_order",
        "send_message", "delete_message", "post_tweet", "book_flight", "cancel_booking", "fill_tank", "lock_door",
        "start_engine", "create_ticket", "close_ticket", "resolve_ticket", "move_file", "copy_file", "book_hotel",
        "modify_order", "transfer_user", "suspend_line", "resume_line",
    }  # fmt: skip
    made = {
        f"{verb}_{entity.name}"
        for skin in SKINS
        for entity in skin.entities
        for verb in [m.verb for m in entity.moves] + [a.verb for a in (entity.states.actions if entity.states else ())]
    }
    assert made & forbidden == set()
    assert not {e.name for s in SKINS for e in s.entities} & {
        "flight",
        "order",
        "reservation",
        "ticket",
        "tweet",
        "file",
    }


def test_log_draws_spread_over_the_powers_of_ten() -> None:
    leading = Counter(int(math.log10(float(v))) for v in draws_of(KINDS["credits"]) if not isinstance(v, str))
    assert set(leading) == {3, 4}
    assert all(0.4 < leading[power] / DRAWS < 0.6 for power in (3, 4))
    assert len(set(islice(draws_of(KINDS["credits"]), 100))) > 95
