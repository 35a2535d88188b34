import asyncio
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from completions_server import serving
from recall.datasets.qa import Question
from recall.errors import ConfigError, RolloutError
from recall.evaluation.qa.compare import changed_settings, differences, read_measured
from recall.evaluation.qa.compare import table as differences_table
from recall.evaluation.qa.judge import JudgeSettings, judge, mark_in
from recall.evaluation.qa.measures import Scores, measure
from recall.evaluation.qa.methods import Ask, Outcome
from recall.evaluation.qa.results import Row, open_results, read_results
from recall.evaluation.qa.run import run
from recall.evaluation.qa.summary import summarize, table

MANIFEST = {
    "method": "rag",
    "top_k": 5,
    "retriever": {"id": "bm25-1"},
    "questions": 2,
    "dataset": {"path": "a", "sha256": "x"},
}
QUESTIONS = [Question(f"q{n}", f"What is {n}?", (str(n),), {"type": "odd" if n % 2 else "even"}) for n in range(40)]


class Parrot:
    """Answers with the question's number, or faults where it is told to."""

    def __init__(self, *faults: str) -> None:
        self.faults = set(faults)
        self.asked: list[str] = []
        self.seeds: dict[str, int | None] = {}
        self.at_once = self.most_at_once = 0

    async def answer(self, ask: Ask) -> Outcome:
        self.asked.append(ask.question.id)
        self.seeds[ask.question.id] = ask.seed
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if ask.question.id in self.faults:
            return Outcome(None, False, False, "fault", fault="PolicyError: down")
        number = ask.question.id[1:]
        return Outcome(number, True, False, "done", (f"query {number}", "é\ud800"), 2, 10, 5, 0.5, texts=("a", "b"))


def row(id: str, prediction: str | None, accepted: str = "36", **more: Any) -> Row:
    return Row(id, f"{id}?", (accepted,), prediction, measure(prediction, [accepted]), **more)


async def test_every_question_is_asked_once_and_measured(tmp_path: Path) -> None:
    parrot = Parrot()
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(parrot, QUESTIONS, results, seed=3, at_once=7)
        assert set(results.rows) == {q.id for q in QUESTIONS}
    assert sorted(parrot.asked) == sorted(q.id for q in QUESTIONS)
    assert parrot.most_at_once == 7
    assert len(set(parrot.seeds.values())) == len(QUESTIONS)
    manifest, rows = read_results(tmp_path / "r")
    assert manifest == {"format": 1, **MANIFEST}
    assert len(rows) == len(QUESTIONS)
    found = next(r for r in rows if r.id == "q7")
    assert (found.prediction, found.scores, found.kind) == ("7", Scores(1, 1, 1, 1, 1), "odd")
    assert found.queries == ("query 7", "é?")  # half of a surrogate pair is no character
    line = json.loads((tmp_path / "r" / "results.jsonl").read_text().splitlines()[0])
    assert line["searches"] == 2


async def test_a_run_goes_on_where_it_stopped_with_the_seeds_that_it_would_have_had(tmp_path: Path) -> None:
    first, second, whole = Parrot(), Parrot(), Parrot()
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(first, QUESTIONS[:15], results, seed=1)
    with open_results(tmp_path / "r", {**MANIFEST, "questions": 40}) as results:
        assert len(results.rows) == 15
        await run(second, QUESTIONS, results, seed=1)
    with open_results(tmp_path / "w", MANIFEST) as results:
        await run(whole, QUESTIONS, results, seed=1)
    assert second.asked == [q.id for q in QUESTIONS[15:]]
    assert first.seeds | second.seeds == whole.seeds
    assert read_results(tmp_path / "r")[0]["questions"] == 40


async def test_questions_with_a_fault_are_asked_anew_and_have_one_row_in_the_end(tmp_path: Path) -> None:
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(Parrot("q3", "q5"), QUESTIONS[:8], results)
        assert summarize(list(results.rows.values()))["faults"] == 2
    again = Parrot("q5")
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(again, QUESTIONS[:8], results)
    assert sorted(again.asked) == ["q3", "q5"]
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(Parrot(), QUESTIONS[:8], results)
    lines = (tmp_path / "r" / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == [f"q{n}" for n in range(8)]


async def test_a_run_in_which_nothing_works_ends_before_it_has_asked_everything(tmp_path: Path) -> None:
    parrot = Parrot(*(q.id for q in QUESTIONS))
    with (
        open_results(tmp_path / "r", MANIFEST) as results,
        pytest.raises(RolloutError, match="16 questions in a row failed: PolicyError: down; the same command goes on"),
    ):
        await run(parrot, QUESTIONS, results, at_once=4)
    assert len(parrot.asked) <= 16 + 2 * 4
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(Parrot(), QUESTIONS, results, at_once=4)
        assert summarize(list(results.rows.values()))["faults"] == 0


@pytest.mark.parametrize("cut", [1, 7, 60])
async def test_a_torn_line_is_asked_anew(tmp_path: Path, cut: int) -> None:
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(Parrot(), QUESTIONS[:5], results, at_once=1)
    path = tmp_path / "r" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Parrot()
    with open_results(tmp_path / "r", MANIFEST) as results:
        await run(again, QUESTIONS[:5], results)
    assert again.asked == ["q4"]
    assert len(read_results(tmp_path / "r")[1]) == 5


PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_qa_runs import MANIFEST, QUESTIONS, Parrot
from recall.evaluation.qa.results import open_results
from recall.evaluation.qa.run import run

class Slow(Parrot):
    async def answer(self, ask):
        await asyncio.sleep(0.01)
        return await super().answer(ask)

with open_results(Path(sys.argv[1]), MANIFEST) as results:
    print("open", flush=True)
    asyncio.run(run(Slow(), QUESTIONS, results, at_once=2))
"""


def test_a_run_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    program = PROGRAM.format(paths=sys.path)
    for tries in range(1, 30):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "r")], stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"open\n"
            time.sleep(0.03 * tries)
            process.send_signal(signal.SIGKILL)
            process.wait()
        rows = read_results(tmp_path / "r")[1]
        if len(rows) == len(QUESTIONS):
            break
    lines = (tmp_path / "r" / "results.jsonl").read_text().splitlines()
    assert tries > 1
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(q.id for q in QUESTIONS)
    assert all(found.scores.em == 1 for found in rows)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"method": "naive"}, "method"),
        ({"top_k": 3}, "top_k"),
        ({"retriever": {"id": "bm25-2"}}, "retriever.id"),
        ({"retriever": None}, "retriever.id"),
        ({"dataset": {"path": "b", "sha256": "y"}}, "dataset.sha256"),
        ({"more": 1}, "more"),
    ],
)
def test_a_folder_of_another_measurement_is_refused_by_name(
    tmp_path: Path, change: Mapping[str, Any], key: str
) -> None:
    with open_results(tmp_path / "r", MANIFEST):
        pass
    with open_results(tmp_path / "r", {**MANIFEST, "dataset": {"path": "elsewhere", "sha256": "x"}}):
        pass
    with (
        pytest.raises(ConfigError, match=rf"holds another measurement: its {key} is .*choose another --out"),
        open_results(tmp_path / "r", {**MANIFEST, **change}),
    ):
        pass


def test_a_folder_that_another_run_is_at_work_in_is_refused(tmp_path: Path) -> None:
    with (
        open_results(tmp_path / "r", MANIFEST),
        pytest.raises(ConfigError, match="another run is at work in it"),
        open_results(tmp_path / "r", MANIFEST),
    ):
        pass
    with open_results(tmp_path / "r", MANIFEST):
        pass


def test_damage_is_one_line_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no measurement in it: it has no manifest\.json"):
        read_results(tmp_path)
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="what they measure is not known"), open_results(tmp_path, MANIFEST):
        pass
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match=r"results\.jsonl row 1: damaged: KeyError"):
        read_results(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(ConfigError, match="not a manifest of format 1"):
        read_results(tmp_path)


def test_a_summary_says_how_the_answers_were_come_by() -> None:
    rows = [
        row("a", "36", closed=True, queries=("x",), turns=2, read_tokens=10, sampled_tokens=4, duration_s=1.0),
        row(
            "b", "37 or 36", closed=True, queries=("x", "y"), turns=3, read_tokens=30, sampled_tokens=8, duration_s=2.0
        ),
        row("c", None, truncated=True, turns=1, duration_s=3.0),
        row("d", None, fault="PolicyError: down"),
    ]
    found = summarize(rows, {"a": True, "b": True})
    assert (found["n"], found["faults"], found["unjudged"]) == (3, 1, 1)
    assert found["em"]["mean"] == pytest.approx(1 / 3)
    assert found["cover_em"]["mean"] == pytest.approx(2 / 3)
    assert found["f1"]["mean"] == pytest.approx((1 + 0.5) / 3)
    assert found["judge"]["mean"] == 1.0
    assert (found["searches"], found["closed"], found["truncated"]) == (1.0, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert found["duration_s"] == {"mean": 2.0, "p50": 2.0, "p95": 3.0}
    assert found["kinds"] == {"": {"n": 3, "em": pytest.approx(1 / 3)}}
    assert found["em"]["low"] < found["em"]["mean"] < found["em"]["high"]
    assert summarize([rows[3]]) == {"n": 0, "faults": 1}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table({"a run": found, "nothing": {"n": 0, "faults": 1}}))
    text = console.export_text()
    assert "EM" in text
    assert "33.3%" in text


def measured(tmp_path: Path, name: str, rows: list[Row], **manifest: Any) -> Path:
    with open_results(tmp_path / name, {**MANIFEST, **manifest}) as results:
        for one in rows:
            results.add(one)
    return tmp_path / name


def test_runs_are_compared_question_by_question(tmp_path: Path) -> None:
    first = [row(f"q{n}", "36" if n % 2 else "x y") for n in range(40)]
    second = [
        replace(one, prediction="36", scores=Scores(1, 1, 1, 1, 1)) if i < 20 else one for i, one in enumerate(first)
    ]
    second[39] = replace(second[39], fault="PolicyError: down")
    a = read_measured(measured(tmp_path, "a", first))
    b = read_measured(measured(tmp_path, "b", second, top_k=3, retriever={"id": "flat-2"}))
    em, f1, cover = differences(a, b)
    assert (em.measure, em.n, em.only_first, em.only_second) == ("em", 39, 0, 10)
    assert em.p == pytest.approx(2 / 2**10)
    assert em.second - em.first == pytest.approx(10 / 39)
    assert em.interval.low < 10 / 39 < em.interval.high
    assert f1.measure == "f1"
    assert f1.p < 0.01
    assert cover.measure == "cover_em"
    assert changed_settings([a, b]) == {"top_k": ["5", "3"], "retriever.id": ["bm25-1", "flat-2"]}
    same = differences(a, a)
    assert [(d.p, d.interval.low, d.interval.high) for d in same] == [(1.0, 0.0, 0.0)] * 3
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(differences_table(a, [(b, [em, f1, cover])]))
    assert "+25.6" in console.export_text()


def test_runs_over_other_questions_are_not_compared(tmp_path: Path) -> None:
    a = read_measured(measured(tmp_path, "a", [row("q1", "x")]))
    b = read_measured(measured(tmp_path, "b", [row("q2", "x")]))
    with pytest.raises(ConfigError, match="no question was answered by both"):
        differences(a, b)
    c = read_measured(measured(tmp_path, "c", [replace(row("q1", "x"), question="another")]))
    with pytest.raises(ConfigError, match="'q1' is another question in each"):
        differences(a, c)


# --- the judge


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


async def test_a_judge_is_asked_once_for_an_answer_however_often_a_run_is_judged(tmp_path: Path) -> None:
    rows = [row("a", "thirty-six"), row("b", "7"), row("c", None), row("d", "x", fault="PolicyError: down")]

    def answer(body: Mapping[str, Any]) -> Any:
        shown = json.loads(body["messages"][1]["content"])
        right = shown["answer to mark"] == "thirty-six"
        return says(f'Well. {{"reason": "it says so", "right": {json.dumps(right)}}}')

    with serving(chat_completions=answer) as server:
        settings = JudgeSettings(url=server.url, model="m")
        for _ in range(2):
            marks = await judge(rows, settings.endpoint(), tmp_path / "j.jsonl")
            assert marks == {"a": True, "b": False, "c": False}
        assert len(server.asked) == 2
        await judge([row("a", "thirty-seven")], settings.endpoint(), tmp_path / "j.jsonl")
        assert len(server.asked) == 3
    assert server.asked[0]["temperature"] == 0
    assert json.loads(server.asked[0]["messages"][1]["content"])["accepted answers"] == ["36"]


async def test_a_mark_that_cannot_be_read_is_asked_for_twice_and_then_left_out(tmp_path: Path) -> None:
    answers = iter(["no idea", "still none", "hm", '{"right": "true"}'])
    with serving(chat_completions=lambda body: says(next(answers))) as server:
        endpoint = JudgeSettings(url=server.url, model="m", at_once=1).endpoint()
        marks = await judge([row("a", "1"), row("b", "2")], endpoint, tmp_path / "j.jsonl")
    assert marks == {"b": True}
    assert summarize([row("a", "1"), row("b", "2")], marks)["unjudged"] == 1


async def test_a_judge_that_is_down_or_unknown_is_said_in_one_line(tmp_path: Path) -> None:
    with (
        serving(chat_completions=lambda body: 404) as server,
        pytest.raises(ConfigError, match="no chat completions of model 'm'"),
    ):
        await judge([row("a", "1")], JudgeSettings(url=server.url, model="m").endpoint(), tmp_path / "j.jsonl")
    endpoint = JudgeSettings(url="http://127.0.0.1:9/v1", model="m").endpoint().model_copy(update={"attempts": 1})
    with pytest.raises(RolloutError, match=r"127\.0\.0\.1:9"):
        await judge([row("a", "1")], endpoint, tmp_path / "k.jsonl")
    with pytest.raises(ConfigError, match=r"--judge\.model: missing"):
        JudgeSettings(url="http://x/v1").endpoint()
    with pytest.raises(ConfigError, match=r"--judge\.url: 'x' is not accepted"):
        JudgeSettings(url="x", model="m").endpoint()


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ('{"reason": "r", "right": true}', True),
        ('```json\n{"reason": "a\nb", "right": false}\n```', False),
        ('{"right": true} no: {"right": false}', False),
        ('{"right": "False"}', False),
        ('{"right": 1}', None),
        ('{"reason": "}"', None),
        ("right", None),
        ("", None),
    ],
)
def test_a_mark_is_read_from_the_last_object_that_has_one(text: str, mark: bool | None) -> None:
    assert mark_in(text) is mark
