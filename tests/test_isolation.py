import pytest

from recall.sandbox.inside.isolation import LAYER, LAYERS, REQUIREMENTS, unmet

EVERY = tuple(REQUIREMENTS)


@pytest.mark.parametrize(
    ("layers", "lacking"),
    [
        ((), ["fs", "net", "proc"]),
        (LAYERS, []),
        (("root", "network", "seccomp", "landlock:fs"), []),
        (("seccomp", "landlock:fs"), []),
        (("seccomp",), ["fs", "proc"]),
        (("seccomp", "uid"), ["fs"]),
        (("landlock:fs", "landlock:tcp", "landlock:scope"), ["net", "proc"]),
        (("root", "network", "uid", "processes"), ["proc"]),
        (("network",), ["fs", "net", "proc"]),
    ],
)
def test_a_requirement_is_met_by_any_one_of_its_ways(layers: tuple[str, ...], lacking: list[str]) -> None:
    assert [words.partition(" ")[0] for words in unmet(layers, EVERY)] == lacking


def test_what_is_lacking_is_told_with_what_would_bring_it() -> None:
    (words,) = unmet((), ["proc"])
    assert "seccomp and uid" in words
    assert "landlock:fs" in words


def test_a_single_layer_can_be_required() -> None:
    assert unmet(("uid",), ["uid"]) == ()
    assert "root with CAP_SETUID" in unmet((), ["uid"])[0]


def test_an_unknown_requirement_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'files'.*fs, net, proc"):
        unmet(LAYERS, ["files"])


def test_every_way_names_layers_and_the_mask_has_room_for_all() -> None:
    named = {layer for each in REQUIREMENTS.values() for way in each.ways for layer in way}
    assert named <= set(LAYER)
    assert len(LAYERS) < 31
