import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from completions_server import CompletionsServer
from completions_server import serving as completions
from recall.cli import main
from recall.datasets import download as downloads
from recall.datasets.closed import write_corpus
from recall.datasets.qa import read_questions
from recall.datasets.rows import read_tasks
from recall.policy.torch.loading import load_tokenizer, resolve
from recall.renderer import ChatMLRenderer, ResearchRenderer
from recall.retriever.base import Passage
from recall.retriever.build import BuildSettings, build
from recall.retriever.fixed import FixedRetriever
from recall.store import Run, read_groups
from recall.tool_calls import SEARCH, format_call, format_search
from recall.types import ToolCall
from test_search_tool import serving as searching

DATA = Path(__file__).parents[2] / "shared" / "data"
TOKENIZER = load_tokenizer(resolve("nano"))
RENDERER = ChatMLRenderer(TOKENIZER)
RESEARCH = ResearchRenderer(TOKENIZER)
NANO = str(resolve("nano"))
PEOPLE = {"Ada": 36, "Bob": 40, "Eve": 9, "Zoë": 77}
QUESTIONS = [
    {"id": f"q{n}", "question": f"How old is {name}?", "golden_answers": [str(age)]}
    for n, (name, age) in enumerate(PEOPLE.items())
]


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "ages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return str(path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("index")
    rows = [
        {"id": str(n), "contents": f'"{name}"\n{name} is {age} years old.'}
        for n, (name, age) in enumerate(PEOPLE.items())
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(BuildSettings(corpus=folder / "corpus.jsonl", index=folder / "index"))
    return str(folder / "index")


def reads_and_writes(body: Mapping[str, Any]) -> Any:
    """A model that searches for the name in the question, and answers with the number that it is shown."""
    text = RENDERER.decode(body["prompt"])
    research = "</search>" in body.get("stop", ())
    renderer: Any = RESEARCH if research else RENDERER
    asked = re.findall(r"How old is (\w+)\?", text)[-1]
    shown = re.findall(rf"{asked} is (\d+) years old", text)
    if shown:
        said = f"\\boxed{{{shown[-1]}}}"
    elif "<tools>" in text or research:
        said = format_search(asked) if research else format_call(ToolCall(SEARCH, {"query": asked}))
    else:
        said = "\\boxed{36}"
    choice = {"finish_reason": "stop", "token_ids": renderer.turn(said), "text": said}
    if research and said.endswith("</search>"):
        choice["stop_reason"] = "</search>"
    return {"choices": [choice]}


@pytest.fixture
def model() -> Iterator[CompletionsServer]:
    with completions(completions=reads_and_writes) as server:
        yield server


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    """The last line of the output as JSON, or the complaint."""
    found = main(["eval", "qa", *arguments])
    output = capsys.readouterr()
    assert found == status, output.err
    if status == 2:
        assert output.err.count("\n") == 1
        return output.err
    return json.loads([line for line in output.out.splitlines() if line.startswith("{")][-1])["datasets"]


def by_server(model: CompletionsServer) -> list[str]:
    return ["--policy.url", model.url, "--policy.model", NANO]


@pytest.mark.parametrize(
    ("method", "em", "searches"),
    [
        ("recall", 1.0, 1.0),
        ("research", 1.0, 1.0),
        ("naive", 0.25, 0.0),
        ("zero-shot", 0.25, 0.0),
        ("rag", 1.0, 1.0),
        ("ircot", 1.0, 1.0),
        ("iter-retgen", 1.0, 3.0),
    ],
)
def test_every_method_runs_from_the_command_line_and_goes_on(
    tmp_path: Path,
    questions: str,
    index: str,
    model: CompletionsServer,
    capsys: pytest.CaptureFixture[str],
    method: str,
    em: float,
    searches: float,
) -> None:
    searched = [] if method in ("naive", "zero-shot") else ["--retriever", index]
    out = ["--method", method, "--dataset", questions, "--out", str(tmp_path / "out"), *searched, *by_server(model)]
    found = evaluate(capsys, *out, "--questions", "2")["ages"]
    assert found["n"] == 2
    before = len(model.asked)
    found = evaluate(capsys, *out)["ages"]
    assert (found["n"], found["faults"], found["em"]["mean"], found["searches"]) == (4, 0, em, searches)
    assert found["closed"] == 1.0
    assert len(model.asked) == 2 * before
    assert evaluate(capsys, *out)["ages"] == found
    assert len(model.asked) == 2 * before
    folder = tmp_path / "out" / "ages"
    behind = [stored.group for file in Run(folder).trajectory_files("qa") for stored in read_groups(file.path)]
    assert len({group.task.id for group in behind}) == len(behind) == 4
    assert sum(group.rewards[0].correct for group in behind) == 4 * em
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["method"] == method
    if searched:
        assert manifest["retriever"]["kind"] == "bm25"
        assert len(manifest["retriever"]["corpus_sha256"]) == 64
    else:
        assert manifest["retriever"] is None


def test_the_row_in_the_sandbox_gives_the_answers_of_the_native_tool(
    tmp_path: Path, questions: str, model: CompletionsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = {name: [Passage(name, f'"{name}"\n{name} is {age} years old.')] for name, age in PEOPLE.items()}
    with searching(FixedRetriever(passages)) as service:
        rows = []
        for tool in ("row", "native"):
            out = tmp_path / tool
            arguments = ("--dataset", questions, "--out", str(out), "--retriever", service.base, "--tool", tool)
            assert evaluate(capsys, *arguments, *by_server(model))["ages"]["em"]["mean"] == 1.0
            lines = (out / "ages" / "results.jsonl").read_text().splitlines()
            fields = [{k: v for k, v in json.loads(line).items() if k != "duration_s"} for line in lines]
            rows.append(sorted(fields, key=lambda row: str(row["id"])))
    assert rows[0] == rows[1]


def test_a_row_is_run_with_a_native_search_and_refused_without_any(
    tmp_path: Path, questions: str, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = str(tmp_path / "rows.jsonl")
    assert main(["data", "qa", questions, rows]) == 0
    limits = ["--limits.max_tokens", "600", "--limits.max_turns", "1", "--policy.device", "cpu"]
    assert main(["run", "--source", rows, "--sandbox.search", index, *limits]) == 0
    assert "[user]\nHow old is Ada?" in capsys.readouterr().out
    assert main(["run", "--source", rows, *limits]) == 2
    assert "give --sandbox.search (an index directory" in capsys.readouterr().err
    assert (
        main(["run", "--source", rows, "--sandbox.search", index, "--sandbox.search_url", "http://h:1", *limits]) == 2
    )
    assert "give one of the two" in capsys.readouterr().err


def test_the_torch_engine_measures_nano(
    tmp_path: Path, questions: str, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--limits.max_tokens", "900", "--limits.max_turn_tokens", "24", "--limits.max_turns", "2"]
    for method in ("recall", "research"):
        arguments = ["--dataset", questions, "--method", method, "--out", str(tmp_path / method), "--retriever", index]
        found = evaluate(capsys, *arguments, *limits, "--limits.max_result_chars", "100", "--policy.device", "cpu")[
            "ages"
        ]
        assert (found["n"], found["faults"]) == (4, 0)
        assert found["sampled_tokens"] > 0


def test_a_fault_of_ours_ends_with_status_1_and_is_asked_again(
    tmp_path: Path, questions: str, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    down = {"q1"}

    def answer(body: Mapping[str, Any]) -> Any:
        return 400 if down and "Bob" in RENDERER.decode(body["prompt"]) else reads_and_writes(body)

    with completions(completions=answer) as server:
        arguments = ["--dataset", questions, "--out", str(tmp_path / "o"), "--retriever", index, *by_server(server)]
        found = evaluate(capsys, *arguments, status=1)["ages"]
        assert (found["n"], found["faults"]) == (3, 1)
        down.clear()
        found = evaluate(capsys, *arguments)["ages"]
    assert (found["n"], found["faults"], found["em"]["mean"]) == (4, 0, 1.0)


def test_answers_are_judged_once_and_runs_compared(
    tmp_path: Path, questions: str, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def mark(body: Mapping[str, Any]) -> Any:
        shown = json.loads(body["messages"][1]["content"])
        right = json.dumps(shown["answer to mark"] in shown["accepted answers"])
        return {"choices": [{"message": {"content": f'{{"right": {right}}}'}, "finish_reason": "stop"}]}

    with completions(completions=reads_and_writes, chat_completions=mark) as server:
        common = ["--dataset", questions, *by_server(server), "--judge.url", server.url, "--judge.model", "j"]
        for _ in range(2):
            rag = evaluate(capsys, *common, "--method", "rag", "--retriever", index, "--out", str(tmp_path / "rag"))
        naive = evaluate(capsys, *common, "--method", "naive", "--out", str(tmp_path / "naive"))
        assert sum("messages" in asked for asked in server.asked) == 8
    assert (rag["ages"]["judge"]["mean"], naive["ages"]["judge"]["mean"]) == (1.0, 0.25)
    assert main(["eval", "compare", str(tmp_path / "naive" / "ages"), str(tmp_path / "rag" / "ages")]) == 0
    text = capsys.readouterr().out
    found = json.loads(text.splitlines()[-1])["against"][str(tmp_path / "rag" / "ages")]
    assert [(d["measure"], d["only_first"], d["only_second"]) for d in found] == [
        ("em", 0, 3), ("f1", 0, 3), ("cover_em", 0, 3), ("judge", 0, 3),
    ]  # fmt: skip
    assert "differs: method: naive | rag" in text
    assert main(["eval", "compare", str(tmp_path / "rag" / "ages")]) == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--method", "rag"], "--retriever: missing; rag searches"),
        (["--method", "naive", "--retriever", "INDEX"], "--retriever: naive does not search"),
        (["--retriever", "INDEX", "--policy.dialect", "research"], "the method decides the dialect"),
        (["--retriever", "INDEX", "--method", "rag", "--tool", "row"], "rag calls no tool"),
        (["--retriever", "INDEX", "--tool", "row"], "search url .*accepted: http://host:port"),
        (["--retriever", "INDEX", "--method", "ircot", "--policy.template", "x"], "ircot has its own prompts"),
        (["--retriever", "INDEX", "--policy.from_text", "true"], "--policy.from_text: is for a server"),
        (
            ["--retriever", "INDEX", "--policy.url", "http://127.0.0.1:9/v1", "--policy.model", "gpt"],
            "no such directory",
        ),
        (["--retriever", "INDEX", "--method", "oracle"], "question 'q0': no question_decomposition"),
        (["--retriever", "nowhere"], "nowhere"),
        (["--retriever", "INDEX", "--sandbox.search", "INDEX"], "it is --retriever that is searched"),
        (["--method", "naive", "--dataset", "hotpotqa"], "get it with: recall data download hotpotqa --to data"),
        (["--method", "naive", "--dataset", "nothing"], "'nothing' is no file; accepted: a file, or one of hotpotqa"),
        (["--method", "guess"], "--method: 'guess' is not accepted"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    tmp_path: Path,
    questions: str,
    index: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [index if word == "INDEX" else word for word in arguments]
    given = given if "--dataset" in given else ["--dataset", questions, *given]
    assert re.search(problem, evaluate(capsys, *given, "--out", "out", status=2))


def test_a_policy_that_a_prompt_leaves_no_room_for_is_refused_in_one_line(
    tmp_path: Path, questions: str, index: str, model: CompletionsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dataset", questions, "--out", str(tmp_path / "o"), "--retriever", index, *by_server(model)]
    assert "the prompt has" in evaluate(capsys, *arguments, "--limits.max_tokens", "50", status=2)


# --- data


@contextmanager
def hub(
    folder: Path, fail: Callable[[str], bool] = lambda path: False, stated: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, list[str]]]:
    """A hub that has the files of a folder, answers ranges, may break off in the middle, and states checksums."""
    seen: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

        def do_HEAD(self) -> None:
            # As the hub does for what lies in its store: its own headers come with the redirection to it.
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/store")
            for name, value in stated.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers.get('Range')}")
            path = Path(self.translate_path(self.path))
            if not path.is_file():
                self.send_error(404, "Not Found")
                return
            data, start = path.read_bytes(), int((self.headers.get("Range") or "bytes=0-")[6:-1])
            if start and start >= len(data):
                self.send_error(416, "Range Not Satisfiable")
                return
            self.send_response(206)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + 10] if fail(self.path) else data[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def bamboogle(folder: Path, rows: int = 125) -> Path:
    path = folder / downloads.BENCHMARKS["bamboogle"][0].path
    path.parent.mkdir(parents=True)
    row = QUESTIONS[0]
    path.write_text("".join(json.dumps({**row, "id": f"t{n}"}) + "\n" for n in range(rows)))
    return path


def test_a_benchmark_is_downloaded_once_and_goes_on_where_it_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bamboogle(tmp_path / "hub")
    broken = [True]
    with hub(tmp_path / "hub", lambda path: broken[0]) as (url, seen):
        monkeypatch.setenv("HF_ENDPOINT", url)
        to = ["--to", str(tmp_path / "data")]
        assert main(["data", "download", "bamboogle", *to]) == 2
        assert "broke off after 10 of" in capsys.readouterr().err
        assert not (tmp_path / "data" / "bamboogle" / "test.jsonl").exists()
        broken.clear()
        broken.append(False)
        assert main(["data", "download", "bamboogle", *to]) == 0
        assert main(["data", "download", "bamboogle", *to]) == 0
    assert [line.split()[-1] for line in seen] == ["bytes=0-", "bytes=10-"]
    assert len(read_questions(tmp_path / "data" / "bamboogle" / "test.jsonl")) == 125
    record = json.loads((tmp_path / "data" / "bamboogle" / "SOURCE.json").read_text())["test.jsonl"]
    assert record["source"].startswith(url)
    assert record["rows"] == 125


def test_a_download_that_is_not_what_it_should_be_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bamboogle(tmp_path / "hub", rows=3)
    with hub(tmp_path / "hub") as (url, _):
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert main(["data", "download", "bamboogle", "--to", str(tmp_path / "data")]) == 2
    assert "it has 3 rows and should have 125" in capsys.readouterr().err
    assert list((tmp_path / "data" / "bamboogle").iterdir()) == []


@pytest.mark.parametrize(
    ("header", "sort", "right"),
    [
        ("X-Linked-Etag", "sha256", True),
        ("X-Linked-Etag", "sha256", False),
        ("ETag", "git", True),
        ("ETag", "git", False),
        ("ETag", "opaque", True),
    ],
)
def test_a_download_has_the_checksum_that_the_hub_states(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    header: str,
    sort: str,
    right: bool,
) -> None:
    data = bamboogle(tmp_path / "hub").read_bytes()
    content = data if right else data + b"x"
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    value = {"sha256": hashlib.sha256(content).hexdigest(), "git": git, "opaque": "5f-1a2b"}[sort]
    with hub(tmp_path / "hub", stated={header: f'"{value}"'}) as (url, _):
        monkeypatch.setenv("HF_ENDPOINT", url)
        status = main(["data", "download", "bamboogle", "--to", str(tmp_path / "data")])
    assert status == (0 if right else 2)
    assert right or f"not the one that the hub states, {value}" in capsys.readouterr().err
    assert (tmp_path / "data" / "bamboogle" / "test.jsonl").exists() is right


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://127.0.0.1:9", "cannot be reached: .*give a folder that has the files with --from"),
        ("HUB", "answers 404"),
    ],
)
def test_offline_the_error_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], endpoint: str, problem: str
) -> None:
    (tmp_path / "hub").mkdir()
    with hub(tmp_path / "hub") as (url, _):
        monkeypatch.setenv("HF_ENDPOINT", url if endpoint == "HUB" else endpoint)
        assert main(["data", "download", "bamboogle", "--to", str(tmp_path / "data")]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert re.search(problem, text)


def test_a_folder_may_be_copied_instead_of_a_download(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bamboogle(tmp_path / "hub").parent
    (source / "test.jsonl").rename(source.parent / "test.jsonl")
    assert main(["data", "download", "bamboogle", "--to", str(tmp_path / "data"), "--from", str(source.parent)]) == 0
    assert (tmp_path / "data" / "bamboogle" / "test.jsonl").is_file()
    assert main(["data", "download", "musique", "--to", str(tmp_path / "data"), "--from", str(source)]) == 2
    assert "there is no train.jsonl or dev.jsonl in it" in capsys.readouterr().err
    assert main(["data", "download", "triviaqa"]) == 2
    assert "'triviaqa' is not known; accepted: hotpotqa, 2wikimultihopqa" in capsys.readouterr().err


def test_questions_become_rows_with_the_address_or_the_placeholder(
    tmp_path: Path, questions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for url, place in ((None, "<search-url-placeholder>"), ("http://127.0.0.1:9001/", "http://127.0.0.1:9001")):
        to = tmp_path / f"rows{url is None}.parquet"
        more = [] if url is None else ["--search_url", url]
        assert main(["data", "qa", questions, str(to), "--data_source", "ages", "--split", "train", *more]) == 0
        tasks = read_tasks(to)
        assert (tasks[0].data_source, tasks[0].split, tasks[0].ground_truth) == ("ages", "train", ("36",))
        assert all(f'"{place}/search"' in task.env for task in tasks)
    assert main(["data", "qa", questions, str(to)]) == 2
    assert "exists; choose another name" in capsys.readouterr().err


def test_a_closed_corpus_holds_every_text_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paragraphs = [{"title": "A", "text": "a b", "is_supporting": True}, {"title": "B", "text": "c"}]
    (tmp_path / "q.jsonl").write_text(json.dumps({**QUESTIONS[0], "paragraphs": paragraphs}) + "\n")
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": "x", "contents": '"A"\na  b'}) + '\n{"id": "0", "contents": "d"}\n'
    )
    to = tmp_path / "corpus.jsonl"
    assert main(["data", "corpus", str(tmp_path / "q.jsonl"), str(tmp_path / "p.jsonl"), "--to", str(to)]) == 0
    rows = [json.loads(line) for line in to.read_text().splitlines()]
    assert rows == [
        {"id": "0", "contents": '"A"\na b'},
        {"id": "1", "contents": '"B"\nc'},
        {"id": "2", "contents": "d"},
    ]
    assert "3 passages; 1 more were there already" in capsys.readouterr().out
    (tmp_path / "bad.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    assert main(["data", "corpus", str(tmp_path / "bad.jsonl"), "--to", str(tmp_path / "x.jsonl")]) == 2
    assert "row 1: neither a passage with contents nor a question with paragraphs" in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


# --- the real questions


@pytest.mark.skipif(not (DATA / "musique").is_dir(), reason="needs the benchmark questions and their paragraphs")
def test_the_oracle_finds_on_the_dev_rows_of_musique_what_the_docs_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("hotpotqa", "2wikimultihopqa", "musique")
    files = [DATA / name / "dev_with_context.jsonl" for name in names]
    files += [DATA / "2wikimultihopqa" / "distractor_corpus_6119.jsonl", DATA / "wiki18_sample" / "passages.jsonl"]
    files.append(DATA / "bamboogle" / "wiki18_passages.jsonl")
    assert write_corpus(files, tmp_path / "corpus.jsonl") == (15_987, 620)
    build(BuildSettings(corpus=tmp_path / "corpus.jsonl", index=tmp_path / "index"))
    dataset = ["--dataset", str(files[2]), "--retriever", str(tmp_path / "index"), "--method", "oracle"]
    found = evaluate(capsys, *dataset, "--out", str(tmp_path / "out"))["dev_with_context"]
    assert (found["n"], found["faults"], found["em"]["mean"]) == (100, 0, 0.77)
    assert found["searches"] == pytest.approx(2.39)
    said = re.search(r"\| BM25, 5 passages \| (\S+) %", (Path(__file__).parents[1] / "docs" / "qa.md").read_text())
    assert said
    assert float(said[1]) == 100 * found["em"]["mean"]
