"""The window without a browser: the index, what is answered, who is let in, the copy."""

import gzip
import json
import os
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recall.cli import main
from recall.errors import ConfigError
from recall.evaluation.kept import Kept
from recall.serving.access import Token
from recall.store import Run
from recall.types import Group, RewardResult, Segment, StopReason, Task, Trajectory
from recall.viewer.index.fetch import trajectories
from recall.viewer.index.find import Filter, find, match_query
from recall.viewer.index.index import RunIndex, Snapshot
from synthetic_run import make_run

pytest.importorskip("msgspec")
pytest.importorskip("fastapi")
zstandard = pytest.importorskip("zstandard")

from recall.viewer.window.app import make_app  # noqa: E402
from recall.viewer.window.assets import bundle, page_files  # noqa: E402
from recall.viewer.window.export import write_export  # noqa: E402
from recall.viewer.window.folder import Folder  # noqa: E402
from recall.viewer.window.health import health  # noqa: E402
from recall.viewer.window.metrics import metrics_of  # noqa: E402
from recall.viewer.window.views import Views  # noqa: E402


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "a", steps=40, files=3)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def lines_of(path: Path) -> list[bytes]:
    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return bytes(stream.read()).split(b"\n")[:-1]


def write_lines(path: Path, lines: list[bytes], *, end: bytes = b"\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.ZstdCompressor().compress(b"\n".join(lines) + end))


def copied(runs: Path, tmp_path: Path, name: str = "step-000001.jsonl.zst") -> tuple[Path, list[bytes]]:
    """A new run directory, and the lines of one file of another run to put into it."""
    run = tmp_path / "odd"
    (run / "trajectories").mkdir(parents=True)
    (run / "config.toml").write_text("seed = 1\n")
    return run, lines_of(runs / "a" / "trajectories" / name)


# The index.


def everything(run: Path) -> list[tuple[int, str, Any, Any]]:
    from recall.store import read_groups

    return [
        (stored.step, stored.split, trajectory, reward)
        for file in Run(run).trajectory_files()
        for stored in read_groups(file.path)
        for trajectory, reward in zip(stored.group.trajectories, stored.group.rewards, strict=True)
    ]


def test_filters_find_what_a_look_at_every_trajectory_finds(runs: Path, cache: Path) -> None:
    index = RunIndex(runs / "a", cache).refresh()
    every = everything(runs / "a")
    assert find(index, Filter()).total == len(every)
    checks: list[tuple[Filter, Any]] = [
        (Filter(correct=True), lambda t, r: r.correct),
        (Filter(reward="0.1..0.2"), lambda t, r: 0.1 <= r.score <= 0.2),
        (Filter(part=("format=0.1",)), lambda t, r: r.parts["format"] == 0.1),
        (Filter(tool=("city_of", "river_of")), lambda t, r: {"city_of", "river_of"} <= {c.name for c in t.calls}),
        (Filter(status=("malformed",)), lambda t, r: any(c.status == "malformed" for c in t.calls)),
        (Filter(calls="2.."), lambda t, r: len(t.calls) >= 2),
        (Filter(tokens="..450"), lambda t, r: len(t.token_ids) <= 450),
        (Filter(text='"not sure"'), lambda t, r: "not sure" in "".join(s.text for s in t.segments[1:])),
        (Filter(task="t0003"), lambda t, r: t.task_id == "t0003"),
    ]
    for wanted, holds in checks:
        expected = sum(holds(trajectory, reward) for _, _, trajectory, reward in every)
        assert 0 < expected < len(every), wanted
        assert find(index, wanted).total == expected, wanted


def test_rows_are_sorted_and_paged(runs: Path, cache: Path) -> None:
    index = RunIndex(runs / "a", cache).refresh()
    whole = find(index, Filter(sort="-tokens", limit=1000)).rows
    sizes = [int(index.columns["tokens"][row]) for row in whole]
    assert sizes == sorted(sizes, reverse=True)
    assert find(index, Filter(sort="-tokens", start=5, limit=7)).rows == whole[5:12]


def test_a_trajectory_is_read_back_as_it_was_written(runs: Path, cache: Path) -> None:
    index = RunIndex(runs / "a", cache).refresh()
    (row,) = find(index, Filter(step="21", sort="-tokens", limit=1)).rows
    (line,) = trajectories(index, [row])
    assert sum(len(segment["token_ids"]) for segment in line["segments"]) == index.columns["tokens"][row]
    assert line["reward"]["score"] == index.columns["score"][row]
    assert [tool["name"] for tool in line["task"]["tools"]] == ["city_of", "river_of", "length_of"]


def test_an_index_grows_with_the_run_and_forgets_what_is_gone(runs: Path, tmp_path: Path, cache: Path) -> None:
    run, lines = copied(runs, tmp_path)
    first, second = (run / "trajectories" / f"step-00000{n}.jsonl.zst" for n in (1, 2))
    write_lines(first, lines)
    index = RunIndex(run, cache)
    assert index.refresh().rows == 96
    write_lines(second, [lines[0].replace(b'"step": 1', b'"step": 2'), *lines[1:]])
    snapshot = index.refresh()
    assert find(snapshot, Filter()).total == 192
    assert find(RunIndex(run, cache).snapshot(), Filter(step="2")).total == 96
    first.unlink()
    assert find(index.refresh(), Filter()).total == 96
    assert find(index.refresh(), Filter(step="1")).total == 0


def test_files_of_several_frames_are_read_and_each_line_found(runs: Path, tmp_path: Path, cache: Path) -> None:
    run, lines = copied(runs, tmp_path)
    compress = zstandard.ZstdCompressor().compress
    parts = [b"\n".join(lines[at : at + 10]) + b"\n" for at in range(0, len(lines), 10)]
    (run / "trajectories" / "step-000001.jsonl.zst").write_bytes(b"".join(map(compress, parts)))
    index = RunIndex(run, cache).refresh()
    assert (index.rows, index.files[0].problem) == (96, "")
    (line,) = trajectories(index, [77])
    assert line["reward"] == json.loads(lines[78])["reward"]


@pytest.mark.parametrize(
    ("spoil", "rows", "said"),
    [
        (lambda data: data[: len(data) // 2], None, "is cut short"),
        (lambda data: b"not zstd at all", 0, "is damaged"),
        (lambda data: b"", 0, "is empty"),
    ],
)
def test_a_file_that_is_not_whole_is_shown_as_far_as_it_goes(
    runs: Path, tmp_path: Path, cache: Path, spoil: Any, rows: int | None, said: str
) -> None:
    run, lines = copied(runs, tmp_path)
    file = run / "trajectories" / "step-000001.jsonl.zst"
    write_lines(file, lines)
    file.write_bytes(spoil(file.read_bytes()))
    index = RunIndex(run, cache).refresh()
    assert said in index.files[0].problem
    assert index.rows == rows if rows is not None else index.rows < 96


def test_odd_lines_and_other_versions_are_notes_and_not_crashes(runs: Path, tmp_path: Path, cache: Path) -> None:
    run, lines = copied(runs, tmp_path)
    folder = run / "trajectories"
    old = [re.sub(rb'"changes": (null|\{\}), ', b"", line) for line in lines]
    write_lines(folder / "step-000001.jsonl.zst", [lines[0].replace(b'"version": 1', b'"version": 0'), *old[1:]])
    write_lines(folder / "step-000002.jsonl.zst", [lines[0].replace(b'"version": 1', b'"version": 9'), *lines[1:]])
    write_lines(folder / "step-000003.jsonl.zst", [lines[0], b"{}", b"[1", *lines[3:]])
    write_lines(folder / "step-000004.jsonl.zst", lines[:9], end=b'\n{"group": 3, "task')
    infinite = [line.replace(b'"advantage": 0.', b'"advantage": NaN, "was": 0.') for line in lines]
    write_lines(folder / "step-000005.jsonl.zst", infinite)
    (folder / ".step-000006.jsonl.zst.tmp-1").write_bytes(b"half")
    index = RunIndex(run, cache).refresh()
    said = {file.name[:11]: file.problem for file in index.files}
    assert "version 0" in said["step-000001"]
    assert "no 'changes'" in said["step-000001"]
    assert "version 9" in said["step-000002"]
    assert "2 of its lines could not be read" in said["step-000003"]
    assert "middle of a line" in said["step-000004"]
    assert (said["step-000005"], len(said)) == ("", 5)
    assert [file.rows for file in index.files] == [96, 0, 94, 8, 96]


def test_more_tools_than_bits_are_told_apart(tmp_path: Path, cache: Path) -> None:
    from recall.types import CallRecord, CallStatus, RewardResult, Segment, StopReason, Task, Trajectory

    run = Run.create(tmp_path / "run", "seed = 0\n")
    groups = []
    for number in range(80):
        calls = (CallRecord(0, f"tool_{number}", {}, "x", CallStatus.OK),)
        played = Trajectory(f"t{number}", (Segment((1,), (-0.1,), "x"),), StopReason.DONE, calls=calls)
        groups.append(Group(Task(f"t{number}", "?", ()), [played], [RewardResult(0.0, False)]))
    run.write_groups(1, groups)
    index = RunIndex(run.path, cache).refresh()
    for number in (0, 62, 63, 79):
        assert find(index, Filter(tool=(f"tool_{number}",))).rows == [number]


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (Filter(reward="high"), "reward: 'high'"),
        (Filter(split="test"), "here are held_out, train"),
        (Filter(sort="colour"), "sort: 'colour'"),
        (Filter(part=("speed=1",)), "here are correct, format"),
        (Filter(text='" "'), "no word"),
    ],
)
def test_a_filter_that_cannot_be_understood_is_refused_by_name(
    runs: Path, cache: Path, wanted: Filter, named: str
) -> None:
    index = RunIndex(runs / "a", cache).refresh()
    with pytest.raises(ConfigError, match=re.escape(named)):
        find(index, wanted)


def test_what_is_searched_for_is_words_and_never_a_query() -> None:
    assert match_query('NEAR(a) OR "b c" d"e') == '"NEAR(a)" "OR" "b c" "de"*'


# What is answered, and to whom.


async def get(
    app: Any,
    path: str,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
) -> tuple[int, dict[str, str], bytes]:
    """One request of an ASGI application."""
    given = {"host": "localhost:8910", **(headers or {})}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8910),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def views(runs: Path, cache: Path) -> Any:
    made = Views(Folder(runs), cache, wait_s=None)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("runs", ""), ("run", "run=a"), ("metrics", "run=a"), ("list", "run=a&correct=true&sort=-reward"),
        ("trajectory", "run=a&row=30"), ("group", "run=a&row=30"), ("task", "run=a&task=t0001"),
        ("health", "run=a"), ("pair", "run=a&other=a"), ("pulse", "run=a"), ("raw", "run=a&row=3"),
    ],
)  # fmt: skip
async def test_every_view_answers_with_json(views: Views, path: str, query: str) -> None:
    status, headers, body = await get(make_app(views, None), f"/api/{path}", query)
    assert status == 200, body
    assert headers["content-type"] == "application/json"
    assert json.loads(body)


async def test_everything_served_has_a_policy_that_lets_only_its_own_scripts_run(views: Views) -> None:
    app = make_app(views, None)
    for path in ("/", "/app.js", "/api/runs", "/none"):
        _, headers, _ = await get(app, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/vendor/../../app.py", "/%2e%2e/app.py", "//etc/passwd", "/__init__.py"]
)
async def test_no_path_leads_out_of_the_page(views: Views, path: str) -> None:
    status, _, body = await get(make_app(views, None), path)
    assert (status, b"root:" in body) == (404, False)


@pytest.mark.parametrize("name", ["../a", "/etc", "a/../a", "a/trajectories", "..", ""])
async def test_no_name_of_a_run_leads_out_of_the_directory(views: Views, name: str) -> None:
    status, _, body = await get(make_app(views, None), "/api/run", f"run={name}")
    assert status == 400
    assert "there is nothing of that name" in json.loads(body)["detail"]


def test_links_to_what_lies_outside_are_not_followed(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(runs / "a")
    make_run(root / "own", steps=4, files=1)
    (root / "again").symlink_to(root / "own")
    assert [entry.name for entry in Folder(root).entries()] == ["again", "own"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8910"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_pages_of_others_are_not_served(views: Views, headers: dict[str, str]) -> None:
    status, _, _ = await get(make_app(views, None), "/api/runs", headers=headers)
    assert status == 403


async def test_a_token_is_asked_for_as_browsers_bring_it(views: Views) -> None:
    app = make_app(views, Token("0123456789abcdef"))
    status, headers, _ = await get(app, "/", headers={"host": "box:8910"})
    assert status == 401
    assert headers["www-authenticate"].startswith("Basic")
    brought = b64encode(b"any:0123456789abcdef").decode()
    status, _, _ = await get(app, "/", headers={"host": "box:8910", "authorization": f"Basic {brought}"})
    assert status == 200


def test_another_address_needs_a_token(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(runs), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "RECALL_VIEW_TOKEN" in capsys.readouterr().err


async def test_a_note_is_kept_with_its_run(tmp_path: Path, cache: Path) -> None:
    make_run(tmp_path / "runs" / "a", steps=4, files=1)
    views = Views(Folder(tmp_path / "runs"), cache)
    app = make_app(views, None)
    body = json.dumps({"run": "a", "tags": ["good", "good", " "], "note": "<b>"}).encode()
    kind = {"content-type": "application/json"}
    assert (await get(app, "/api/note", "", kind, "POST", body))[0] == 200
    assert (await get(app, "/api/note", "", {"content-type": "text/plain"}, "POST", body))[0] == 415
    _, _, told = await get(app, "/api/run", "run=a")
    views.close()
    assert (json.loads(told)["tags"], json.loads(told)["note"]) == (["good"], "<b>")


def test_texts_of_megabytes_are_sent_in_part_and_whole_when_asked_for(runs: Path, tmp_path: Path, cache: Path) -> None:
    run, lines = copied(runs, tmp_path)
    line = json.loads(lines[1])
    line["segments"][1]["text"] = "é<script>" + "x" * 10_000_000
    write_lines(run / "trajectories" / "step-000001.jsonl.zst", [lines[0], json.dumps(line).encode()])
    views = Views(Folder(tmp_path), cache, wait_s=None)
    sent = views.trajectory("odd", 0)["line"]["segments"][1]
    assert (len(sent["text"]), sent["text_chars"]) == (60_000, 10_000_009)
    assert len(views.text("odd", 0, "segment-1")) == 10_000_009
    views.close()


def test_metrics_with_a_torn_last_line_are_read_with_a_note(tmp_path: Path) -> None:
    make_run(tmp_path / "a", steps=4, files=1)
    with open(tmp_path / "a" / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 5, "reward/me')
    told = metrics_of(tmp_path / "a")
    assert told["steps"] == [0, 1, 2, 3, 4]
    assert "last line is not whole" in told["notes"][0]


# Health.


@pytest.fixture
def snapshot(runs: Path, cache: Path) -> Snapshot:
    return RunIndex(runs / "a", cache).refresh()


@pytest.mark.parametrize(
    ("columns", "check", "level"),
    [
        ({"policy/entropy": [0.9] * 20 + [0.001] * 10}, "entropy", "bad"),
        ({"groups/used": [0.0] * 10, "groups/zero_variance": [16.0] * 10}, "rewards", "bad"),
        ({"rollout/truncated": [0.6] * 10}, "truncation", "bad"),
        ({"policy/logprob_gap_max": [0.9] * 10}, "engines", "bad"),
        ({"time/tools_share": [0.8] * 10}, "waiting", "warn"),
        ({"reward/mean": [0.1] * 10 + [0.6] * 10, "success/mean": [0.1] * 20}, "pays", "bad"),
        ({"policy/entropy": [0.9] * 10}, "entropy", "good"),
        ({}, "entropy", "unknown"),
    ],
)
def test_health_says_what_is_wrong(snapshot: Snapshot, columns: dict[str, list[float]], check: str, level: str) -> None:
    told = {each["check"]: each for each in health({"columns": columns}, snapshot, [])}
    assert told[check]["level"] == level
    assert told[check]["words"].endswith(".")


def test_what_health_points_at_can_be_filtered_by(snapshot: Snapshot) -> None:
    columns = {"rollout/truncated": [0.6] * 10, "policy/entropy": [0.9, 0.001], "time/tools_share": [0.9]}
    found = [each["filter"] for each in health({"columns": columns}, snapshot, []) if each["filter"]]
    assert found
    for wanted in found:
        find(snapshot, Filter.model_validate(wanted))


# The copy, and the page's own code.


def test_an_entry_of_an_evaluation_leads_to_the_latest_trajectory_behind_it(tmp_path: Path) -> None:
    def group(task: str, answer: str) -> Group:
        played = Trajectory(task, (Segment((1,)), Segment((2,), (-0.5,), answer)), StopReason.DONE, answer)
        return Group(Task(task, "?", ("a",)), [played], [RewardResult(1.0, True)])

    folder = tmp_path / "runs" / "qa"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "results.jsonl").write_text("".join(json.dumps({"id": f"q{n}", "em": 1.0}) + "\n" for n in range(4)))
    for answers in (("fault", "a", "a"), ("again",)):  # an entry that failed through a fault of ours is asked again
        kept = Kept(folder, part=2)
        for number, answer in enumerate(answers):
            kept.add("qa", group(f"q{number}", answer))
        kept.close()
    views = Views(Folder(tmp_path / "runs"), tmp_path / "cache", wait_s=None)
    rows = {row["id"]: row["trajectory"] for row in views.evaluation("qa")["rows"]}
    said = {name: None if row is None else views.raw("qa", row)["answer"] for name, row in rows.items()}
    listed = views.listing("qa", Filter())
    views.close()
    assert said == {"q0": "again", "q1": "a", "q2": "a", "q3": None}
    assert (listed["total"], listed["rows"][0]["task"]) == (4, "q0")


def test_a_copy_holds_what_the_server_answers(views: Views, tmp_path: Path) -> None:
    path = write_export(views, tmp_path / "copy", 60)
    text = path.read_text()
    (data,) = re.findall(r'id="copy">(.*?)</script>', text, re.DOTALL)
    held = {key: json.loads(gzip.decompress(b64decode(value))) for key, value in json.loads(data).items()}
    assert held["health|a|"] == views.health("a")
    rows = held["rows|a"]
    assert 0 < len(rows) <= 60
    assert all(f"trajectory|a|{row['row']}" in held for row in rows)
    assert {"held_out", "train"} == {row["split"] for row in rows}
    assert "This copy holds" in held["run|a|"]["notes"][-1]
    assert not re.search(r'(src|href)="(?!#)', text.replace('href="#', ""))


def test_the_page_makes_no_markup_of_text() -> None:
    for name, (content, _) in page_files().items():
        if name.endswith(".js") and not name.startswith("vendor/"):
            assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", content), name


def test_modules_that_are_bundled_keep_their_names_apart() -> None:
    files = {
        "a.js": 'import { x } from "./b.js";\nconst y = 2;\nx(y);\n',
        "b.js": "const y = 1;\nexport function x(z) {}\n",
    }
    script = bundle(files, "a")
    assert script.index("const $b = (() => {") < script.index("const { x } = $b;")
    assert "return { x };" in script


def test_the_snippet_of_the_page_is_a_program(runs: Path, tmp_path: Path) -> None:
    module = page_files()["trajectory.js"][0].decode()
    (template,) = re.findall(r"return `(from itertools.*?)`;", module, re.DOTALL)
    values = iter(['"a"', '"step-000001.jsonl.zst"', "2", "1", "1", '"exact"'])
    program = re.sub(r"\$\{[^}]*\}", lambda _: next(values), template).replace('"RUNS"', repr(str(runs)))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("RewardResult(") == 2
