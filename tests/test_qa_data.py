import json
from dataclasses import replace
from pathlib import Path

import pytest

from recall.datasets.convert import checked_url, search_tasks, waits_for_url, with_search_url
from recall.datasets.qa import Hop, Paragraph, Question, read_questions
from recall.datasets.rows import read_tasks, write_tasks
from recall.errors import ConfigError
from recall.tools.search import SEARCH_URL
from recall.types import Task, ToolSpec

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmark questions")
ROW = {
    "id": "2hop__1_2",
    "question": "Where was the author of X born?",
    "golden_answers": ["Paris", "Paris, France"],
    "metadata": {
        "type": "2hop",
        "question_decomposition": [
            {"id": 1, "question": "X >> author", "answer": "Ann", "paragraph_support_idx": 1},
            {"id": 2, "question": "#1 >> place of birth", "answer": "Paris"},
        ],
    },
    "paragraphs": [{"title": "X", "text": "X is by Ann.", "is_supporting": True}, {"title": "Y", "text": ""}],
}


def file_of(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "dev.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_row_is_read_whole(tmp_path: Path) -> None:
    (question,) = read_questions(file_of(tmp_path, ROW))
    assert question.answers == ("Paris", "Paris, France")
    assert question.hops == (Hop("X >> author", "Ann", 1), Hop("#1 >> place of birth", "Paris"))
    assert question.paragraphs == (Paragraph("X", "X is by Ann.", True), Paragraph("Y", ""))
    assert question.kind == "2hop"


def test_a_plain_row_is_enough(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, {"id": 7, "question": "Q?", "golden_answers": "yes"}, "", {**ROW, "golden_answers": [1960]}
    )
    assert [(q.id, q.answers) for q in read_questions(path)] == [("7", ("yes",)), ("2hop__1_2", ("1960",))]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": None}, "id: missing"),
        ({"id": True}, "id: missing"),
        ({"question": " "}, "question: missing or empty"),
        ({"golden_answers": []}, "golden_answers: missing; accepted: a list"),
        ({"golden_answers": [""]}, r"golden_answers\[0\]: missing or empty"),
        ({"golden_answers": {"a": 1}}, "golden_answers: missing; accepted: a list"),
        ({"metadata": [1]}, "metadata: must be an object, not list"),
        ({"metadata": {"question_decomposition": [{"question": "x"}]}}, "metadata.question_decomposition: accepted"),
        ({"metadata": {"question_decomposition": ["x"]}}, "metadata.question_decomposition: accepted"),
        (
            {"metadata": {"question_decomposition": [{"question": "", "answer": "x"}]}},
            r"metadata.question_decomposition\[0\].question",
        ),
        ({"paragraphs": "x"}, "paragraphs: must be a list, not str"),
        ({"paragraphs": [{"title": "x"}]}, r"paragraphs\[0\]: accepted: an object"),
    ],
)
def test_a_bad_row_is_refused_by_file_row_and_field(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    path = file_of(tmp_path, {**ROW, "id": "first"}, {**ROW, **change})
    with pytest.raises(ConfigError, match=rf"dev\.jsonl row 2: {problem}"):
        read_questions(path)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "no questions in it"),
        (["[1"], "row 1: not JSON"),
        ([["x"]], "row 1: must be an object, not list"),
        ([ROW, ROW], "row 2: id: '2hop__1_2' is taken by .*row 1"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused_in_one_line(
    tmp_path: Path, rows: list[object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_questions(file_of(tmp_path, *rows))
    with pytest.raises(ConfigError, match=r"missing\.jsonl: cannot be read: No such file"):
        read_questions(tmp_path / "missing.jsonl")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_task_rows_are_read_as_questions_and_questions_make_task_rows(tmp_path: Path, suffix: str) -> None:
    questions = read_questions(file_of(tmp_path, ROW))
    path = tmp_path / f"tasks.{suffix}"
    write_tasks(path, search_tasks(questions, data_source="musique", split="train", top_k=3))
    (task,) = read_tasks(path)
    assert (task.data_source, task.split, task.kind, task.depth) == ("musique", "train", "2hop", 2)
    assert task.ground_truth == questions[0].answers
    assert task.tools[0].parameters["properties"]["top_n"]["default"] == 3
    assert waits_for_url(task)
    assert read_questions(path) == [Question("2hop__1_2", ROW["question"], questions[0].answers)]  # type: ignore[arg-type]


@pytest.mark.parametrize("data_source", ["musique_re_call", "re_call", "", "anything"])
def test_the_placeholder_is_filled_in_whatever_the_data_source(data_source: str) -> None:
    published = (
        f'import requests\nurl = "{SEARCH_URL}/search"\nother = "{SEARCH_URL}/batch_search"\ndef s(q):\n    return 1\n'
    )
    task = Task("t", "q", ("a",), env=published, tools=(ToolSpec("s", "", {}),), data_source=data_source)
    filled = with_search_url(task, "http://127.0.0.1:9000/")
    assert 'url = "http://127.0.0.1:9000/search"' in filled.env
    assert not waits_for_url(filled)
    assert replace(filled, env=published) == task
    assert with_search_url(filled, "http://other") is filled


def test_an_address_that_is_none_is_refused() -> None:
    assert checked_url("http://127.0.0.1:9000/") == "http://127.0.0.1:9000"
    for url in ("127.0.0.1:9000", "ftp://x", "http://", "http://x/?a=1", 'http://x/"'):
        with pytest.raises(ConfigError, match="accepted: http://host:port"):
            checked_url(url)


@needs_data
def test_the_whole_train_list_of_musique_converts_and_reads_back(tmp_path: Path) -> None:
    questions = read_questions(DATA / "musique" / "train19938_questions.jsonl")
    path = tmp_path / "train.parquet"
    write_tasks(path, search_tasks(questions, data_source="musique", split="train"))
    tasks = read_tasks(path)
    assert len(tasks) == 19_938
    assert [(t.id, t.question, t.ground_truth) for t in tasks] == [(q.id, q.question, q.answers) for q in questions]
    assert {len(t.tools) for t in tasks} == {1}


@needs_data
def test_every_benchmark_reads_whole() -> None:
    counts = {path.stem: len(read_questions(path)) for path in DATA.glob("*/*.jsonl") if "questions" in path.name}
    assert counts["dev7405_questions"] == 7405
    assert counts["dev12576_questions"] == 12_576
    assert counts["dev2417_questions"] == 2417
    assert len(read_questions(DATA / "bamboogle" / "test125.jsonl")) == 125
    dev = read_questions(DATA / "musique" / "dev_with_context.jsonl")
    assert all(question.hops and len(question.paragraphs) == 20 for question in dev)
    assert all(question.hops[-1].answer in question.answers for question in dev)
