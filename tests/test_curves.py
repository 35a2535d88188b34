"""The picture of curves: sound SVG, honest bands, refusals by name."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from recall.errors import ConfigError
from recall.store import Run
from recall.viewer.curves import write_curves
from recall.viewer.svg import Frame, smooth, thin, ticks
from synthetic_run import make_run


def run_of(path: Path, *values: float) -> Path:
    run = Run.create(path, "")
    for step, value in enumerate(values):
        run.append_metrics({"step": step, "val/held_out/sampled/2": value, "time/step_s": 60.0})
    return path


def test_picture_is_xml_that_loads_nothing(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), seed=seed, steps=24, files=1) for seed in (1, 2, 3)]
    text = write_curves(runs, tmp_path / "curves.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "median of 3 seeds" in text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"url\(|href|<script", text)


def test_band_runs_from_least_to_most_and_the_line_is_the_median(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(i), 0.0, value) for i, value in enumerate((0.2, 0.5, 1.0))]
    text = write_curves(runs, tmp_path / "c.svg").read_text(encoding="utf-8")
    frame = Frame(880, 430, (0, 1), (0, 1), left=64, right=104, top=78, bottom=58)
    assert f'class="line c0" d="{frame.path([(0, 0.0), (1, 0.5)])}"' in text
    assert f'd="{frame.area([(0, 0.0), (1, 1.0)], [(0, 0.0), (1, 0.2)])}"' in text


def test_runs_of_unequal_length_are_drawn_as_far_as_all_reach(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "long", 0.0, 0.1, 0.2, 0.9), run_of(tmp_path / "short", 0.0, 0.1, 0.2)]
    text = write_curves(runs, tmp_path / "c.svg", axis="minutes").read_text(encoding="utf-8")
    line = re.search(r'class="line c0" d="([^"]+)"', text)
    assert line is not None
    assert line[1].count("L") == 2
    assert "minutes of training" in text


def test_refusals_name_what_is_wrong(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 0.5)
    with pytest.raises(ConfigError, match=r"c\.png: a picture of curves is an \.svg"):
        write_curves([run], tmp_path / "c.png")
    with pytest.raises(ConfigError, match="no run to draw"):
        write_curves([], tmp_path / "c.svg")
    with pytest.raises(ConfigError, match=r"no validation 'greedy' in metrics\.jsonl; it has sampled"):
        write_curves([run], tmp_path / "c.svg", mode="greedy")


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert ticks(0.0, 1.0, about=5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.07, 0.09) == [-0.05, 0.0, 0.05]
    assert ticks(4700, 6900) == [5000, 6000]
    assert ticks(3.0, 3.0) == [3.0]


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value() -> None:
    assert [y for _, y in smooth([(0, 2.0), (1, 2.0)], 0.9)] == pytest.approx([2.0, 2.0])
    assert smooth([(0, 5.0), (1, 0.0)], 0.5)[0] == (0, 5.0)


def test_thinning_keeps_the_mean_of_equal_shares() -> None:
    assert thin([(x, float(x)) for x in range(6)], 3) == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5)]
