"""The report of a run: complete in one file, safe with whatever a model wrote, the same each time."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recall.errors import ConfigError
from recall.store import Run
from recall.types import CallRecord, CallStatus, Group, RewardResult, Segment, StopReason, Task, Trajectory
from recall.viewer.record import read_run, sort_kinds
from recall.viewer.report import write_report
from recall.viewer.sample import choose_members, spread
from recall.viewer.text import visible
from synthetic_run import KINDS, make_run

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- ]]> &amp; \" ' \x1b[31m \u202e \x00 \ud800"
)
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """What a browser would build of a page, as far as these tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """What the page gives its script."""
        loaded: dict[str, Any] = json.loads(self.scripts[0])
        return loaded


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "nano", seed=7, steps=48, files=3)


@pytest.fixture(scope="module")
def html(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


def hostile_run(path: Path, text: str = HOSTILE, groups: int = 1) -> Path:
    run = Run.create(path, f"# {text.encode('ascii', 'replace').decode()}\n")
    run.append_metrics({"step": 1, "reward/mean": 0.5, "val/a<b>/sampled/<i>1": 0.5, 'x"><script>': 1.0})
    said = Segment(tuple(range(len(text))), None, text)
    sampled = Segment(said.token_ids, (-0.5,) * len(text), text, 0)
    call = CallRecord(0, text, {text: text}, text, CallStatus.EXCEPTION, 0.1)
    played = Trajectory(text, (said, sampled, said, sampled), StopReason.FAULT, text, (call,), fault=text)
    reward = RewardResult(0.0, False, {text: 1.0})
    tasks = [Task(f"{i}{text}", text, (text,), kind=text, split=text) for i in range(groups)]
    run.write_groups(1, [Group(task, [played], [reward]) for task in tasks], advantages=[[0.5]] * groups)
    return path


def test_page_loads_nothing_and_runs_only_its_own_script(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in html
    assert "url(" not in html
    assert len(page.scripts) == 2
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_headline_shows_success_before_and_after_by_kind(html: str) -> None:
    text = re.sub(r"\s+", " ", Page(html).text)
    assert "Held-out success 14% → 90%" in text
    assert "3 calls2%81%+79" in text
    assert "23.4 min" in text


def test_every_curve_of_the_run_is_drawn_without_the_script(html: str) -> None:
    for title in ("Reward", "Entropy", "Tokens a second", "Seconds a step", "Groups by variance", "Held-out success"):
        assert re.search(rf'<svg [^>]*aria-label="{title}', html), title
    assert html.count('class="line') > len(KINDS) * 3


def test_conversation_is_readable_without_the_script(html: str) -> None:
    page = Page(html)
    assert "What is the river of the city that" in page.text
    assert "the call is not valid JSON" in page.text
    assert "city_of(of=" in page.text
    assert "<tool_call>" not in page.text.replace('<tool_call>\n{"name": "river_of", "arguments":', "")


def test_token_view_marks_exactly_the_sampled_tokens(run_dir: Path, html: str) -> None:
    for entry in Page(html).data["trajectories"].values():
        for segment in entry["segments"]:
            assert segment["count"] == len(segment["ids"]) == len(segment["pieces"])
            assert (segment["author"] == "policy") == ("logprobs" in segment)
            assert len(segment.get("logprobs", segment["ids"])) == segment["count"]
    after = Page(html).data["trajectories"]["p0A"]["segments"]
    authors = ["policy", "environment"] * (len(after) // 2) + ["policy"]
    assert [segment["author"] for segment in after] == authors


def test_what_a_learner_saw_of_each_token_is_in_the_report(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "")
    run.append_metrics({"step": 1})
    seen = Segment((1, 2), (-0.5, -1.0), "ab", entropies=(0.25, float("inf")), learner_logprobs=(-0.5, -0.75))
    played = Trajectory("t", (Segment((1,), None, "a"), seen), StopReason.DONE)
    group = Group(Task("t", "q", ("a",)), [played], [RewardResult(1.0, True)])
    run.write_groups(1, [group], advantages=[[0.5]])
    (entry,) = Page(write_report(run.path).read_text(encoding="utf-8")).data["trajectories"].values()
    (segment,) = entry["segments"]
    assert (segment["entropies"], segment["learner_logprobs"]) == ([0.25, None], [-0.5, -0.75])
    assert (entry["advantage"], segment["pieces"]) == (0.5, ["a", "b"])


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    html = write_report(hostile_run(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.scripts) == 2
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", html)
    assert "<script>alert(1)</script>" in page.text
    assert "".join(page.data["trajectories"]["s1mixed-0"]["segments"][0]["pieces"]) == HOSTILE


def test_visible_keeps_lines_and_writes_out_what_cannot_be_seen() -> None:
    assert visible("a\tb\r\nc") == "a\tb\nc"
    assert visible("\x1b[31m\x7f\u202e\ud800\r") == "␛[31m␡\\u202e\\ud800␍"
    assert visible("Łódź 東京 🙂") == "Łódź 東京 🙂"


def test_report_of_huge_trajectories_is_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=40, files=6)
    run = Run(path)
    for step in range(41, 44):
        text = "<&\u202e>" * 4000
        said, sampled = Segment(tuple(range(4000)), None, text), Segment(tuple(range(4000)), (-0.125,) * 4000, text, 0)
        calls = tuple(CallRecord(i, "f", {"x": text}, text, CallStatus.OK) for i in range(8))
        played = Trajectory("t", (said, *(sampled, said) * 8), StopReason.DONE, None, calls)
        group = Group(Task(f"big{step}", text, (text,)), [played] * 4, [RewardResult(1.0, True)] * 4)
        run.write_groups(step, [group] * 3)
    report = write_report(path)
    assert report.stat().st_size < 3_000_000
    assert "groups are left out to keep this file small" in report.read_text(encoding="utf-8")


def test_same_run_gives_the_same_report(run_dir: Path, html: str) -> None:
    assert write_report(run_dir).read_text(encoding="utf-8") == html
    assert not list(run_dir.glob("*.tmp*"))


def test_report_of_a_run_that_is_still_going(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = Run.create(path, "")
    for step, value in ((0, 0.25), (10, 0.5)):
        run.append_metrics({"step": step, "val/held_out/greedy/1": value, "policy/loss": float("nan")})
    with open(run.metrics_path, "a", encoding="utf-8") as file:
        file.write('{"step": 11, "rew')
    record = read_run(path)
    assert (record.before, record.after) == ({"greedy": {"1": 0.25}}, {"greedy": {"1": 0.5}})
    assert "25% → 50%" in Page(write_report(path).read_text(encoding="utf-8")).text


def test_summary_may_name_success_without_a_mode(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "")
    run.append_metrics({"step": 1})
    run.write_json("summary.json", {"before": {"1": 0.1, "join": 0}, "after": {"1": 1, "join": 0.5}})
    record = read_run(run.path)
    assert record.before == {"": {"1": 0.1, "join": 0.0}}
    assert "join0%50%+50" in Page(write_report(run.path).read_text(encoding="utf-8")).text


def test_resumed_steps_replace_what_they_were(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "")
    for value in (1.0, 2.0):
        run.append_metrics({"step": 1, "reward/mean": value})
    assert read_run(run.path).series("reward/mean") == [(1, 2.0)]


@pytest.mark.parametrize("missing", ["nowhere", "."])
def test_what_is_not_a_run_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / missing))):
        write_report(tmp_path / missing)


def test_a_given_decoder_gives_the_text_of_tokens(tmp_path: Path) -> None:
    path = hostile_run(tmp_path / "run", "ab")
    html = write_report(path, decode=lambda ids: "".join(f"<{token}>" for token in ids)).read_text(encoding="utf-8")
    assert Page(html).data["prompts"]["s1mixed"][0]["pieces"] == ["<0>", "<1>"]


def test_shown_steps_and_members_reach_both_ends() -> None:
    assert spread(range(1, 101)) == [1, 21, 41, 60, 80, 100]
    assert spread([3, 1, 2]) == [1, 2, 3]


def test_shown_members_are_the_best_the_worst_and_some_between(run_dir: Path) -> None:
    from recall.store import read_groups

    for stored in read_groups(Run(run_dir).trajectory_files("train")[0].path):
        scores = [reward.score for reward in stored.group.rewards]
        shown = [scores[index] for index in choose_members(stored)]
        assert len(shown) == 4
        assert shown == sorted(shown, reverse=True)
        assert (shown[0], shown[-1]) == (max(scores), min(scores))


def test_kinds_stand_in_the_order_of_calls() -> None:
    assert sort_kinds({"10", "join", "2", "a"}) == ["2", "10", "a", "join"]


def test_a_decoder_that_drops_a_leading_space_loses_none(tmp_path: Path) -> None:
    words = {1: "a", 2: " b", 3: " c"}
    run = Run.create(tmp_path / "run", "")
    run.append_metrics({"step": 1})
    segment = Segment((1, 2, 3), (-0.5,) * 3, "a b c")
    played = Trajectory("t", (Segment((1,), None, "a"), segment), StopReason.DONE)
    run.write_groups(1, [Group(Task("t", "q", ("a",)), [played], [RewardResult(1.0, True)])])
    report = write_report(run.path, decode=lambda ids: "".join(words[token] for token in ids).lstrip())
    (segment,) = Page(report.read_text(encoding="utf-8")).data["trajectories"]["s1mixed-0"]["segments"]
    assert (segment["pieces"], segment["logprobs"]) == (["a", " b", " c"], [-0.5] * 3)
