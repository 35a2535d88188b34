"""Makes what the browser looks at: runs that are well, hostile, long and broken; evaluations; a report on a set."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from recall.evaluation.kept import Kept
from recall.store import Run
from recall.types import CallRecord, CallStatus, Group, RewardResult, Segment, StopReason, Task, ToolSpec, Trajectory
from recall.viewer.report import write_report
from synthetic_run import make_run

HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned=2'>\x1b[31m red \x00\u202egnp.exe\u2066 "
    "javascript:alert(1) \r bell\x07 </pre></main> &lt;b&gt; ${window.pwned=3} \u200f"
)


def hostile(root: Path) -> None:
    """A run in which everything that a model, a tool or a task can say is hostile, and one line has ten megabytes."""
    task = Task(
        HOSTILE,
        HOSTILE,
        (HOSTILE,),
        "def f():\n    return '</script><script>window.pwned=4</script>'\n",
        (ToolSpec(HOSTILE, HOSTILE, {"type": "object", "properties": {HOSTILE: {"description": HOSTILE}}}),),
        split="train",
        kind=HOSTILE,
        depth=1,
        reference=({"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}},),
        extra={HOSTILE: HOSTILE},
    )
    call = CallRecord(0, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE + "\n" + "z" * 10_000_000, CallStatus.OK, 0.5)
    said = HOSTILE + "\nword" * 200
    ids = tuple(range(len(said)))
    one = Trajectory(
        HOSTILE,
        (Segment((1, 2), None, HOSTILE), Segment(ids, (-0.1,) * len(ids), said, 0), Segment((3,), None, HOSTILE)),
        StopReason.DONE,
        HOSTILE,
        (call,),
    )
    faulty = replace(one, fault=HOSTILE, stop_reason=StopReason.FAULT, calls=())
    run = Run.create(
        root / "hostile", f"# {HOSTILE.encode('ascii', 'ignore').decode().replace(chr(0), '')}\nbroken = ["
    )
    reward = RewardResult(0.5, False, {HOSTILE: 1.0})
    run.write_groups(1, [Group(task, [one, faulty], [reward, reward])], advantages=[[0.5, -0.5]])
    run.append_metrics({"step": 1, HOSTILE: 1.0, f"val/{HOSTILE}/sampled/1": 0.5, "reward/mean": 0.5})
    (run.path / "window.json").write_text(json.dumps({"tags": [HOSTILE], "note": HOSTILE}))
    with open(run.metrics_path, "ab") as file:
        file.write(b'{"step": 2, "torn')
    whole = run.trajectory_files()[0].path.read_bytes()
    (run.path / "trajectories" / "step-000002.jsonl.zst").write_bytes(whole[: len(whole) // 2])


def long(root: Path) -> None:
    """A run with a trajectory of 32,768 tokens that records everything of each."""
    line = "The third result says that it is larger than the second one.\n"
    asked = "<|im_start|>user\nlong?<|im_end|>\n"
    text = (line * 600)[: 32_768 - len(asked)]
    words = tuple(map(ord, text))
    logprobs = tuple(-((at * 37 % 100) / 40) for at in range(len(words)))
    task = Task("long", "What does a long trajectory look like?", ("42",), split="train", depth=2, kind="long")
    prompt = Segment(
        tuple(map(ord, "<|im_start|>user\nlong?<|im_end|>\n")), None, "<|im_start|>user\nlong?<|im_end|>\n"
    )
    one = Trajectory("long", (prompt, Segment(words, logprobs, text, 3)), StopReason.MAX_TOKENS, None)
    run = Run.create(root / "long", "seed = 0\n")
    path = run.write_groups(1, [Group(task, [one], [RewardResult(0.0, False)])], advantages=[[-1.0]])
    run.append_metrics({"step": 1, "reward/mean": 0.0})
    import zstandard

    with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        head, body, _ = bytes(stream.read()).split(b"\n")
    fields = json.loads(body)
    fields["segments"][1]["entropies"] = [-value / 2 for value in logprobs]
    fields["segments"][1]["learner_logprobs"] = [value + (at % 11 - 5) / 20 for at, value in enumerate(logprobs)]
    path.write_bytes(zstandard.ZstdCompressor().compress(head + b"\n" + json.dumps(fields).encode() + b"\n"))


def evaluations(root: Path) -> None:
    """Two measurements of questions, before and after, and one of the leaderboard."""
    for name, solved in (("qa-before", 3), ("qa-after", 7)):
        folder = root / name
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"format": 1, "policy": {"model": name}, "temperature": 0}))
        rows: list[dict[str, Any]] = []
        for number in range(10):
            right, odd = float((number * 7) % 10 < solved), HOSTILE if number == 9 else ""
            rows.append(
                {"id": f"q{number}", "question": f"Who wrote book {number}? {odd}", "accepted": ["Ada"],
                 "prediction": "Ada" if right else "Bob", "kind": "bridge" if number % 2 else "comparison", "em": right,
                 "f1": right, "cover_em": right, "stop": "done", "turns": 2, "queries": ["book"], "fault": None,
                 "texts": ["<think>I search.</think>", f"\\boxed{{{'Ada' if right else 'Bob'}}}"], "duration_s": 1.5}
            )  # fmt: skip
        (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
        kept = Kept(folder)
        for row in rows:
            task = Task(row["id"], row["question"], tuple(row["accepted"]), split="qa", kind=row["kind"])
            said = f"I looked it up. \\boxed{{{row['prediction']}}}"
            words = tuple(map(ord, said))
            segments = (Segment((60, 62), None, "<>"), Segment(words, (-0.25,) * len(words), said, 0))
            played = Trajectory(row["id"], segments, StopReason.DONE, row["prediction"])
            kept.add("qa", Group(task, [played], [RewardResult(row["em"], bool(row["em"]), {"f1": row["f1"]})]))
        kept.close()
    folder = root / "bfcl"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"categories": ["simple_python"], "policy": "oracle"}))
    verdicts = [
        {"id": f"simple_{number}", "category": "simple_python", "valid": number % 3 > 0,
         "error_type": "" if number % 3 else "value_error", "message": "" if number % 3 else "a is 1, not 2",
         "asked": ["Add 1 and 2."], "result": [{"add": {"a": 1, "b": 2}}], "turns": 1, "calls": 1, "fault": None}
        for number in range(9)
    ]  # fmt: skip
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in verdicts))


def report(root: Path) -> None:
    """The report on a small set."""
    folder = root / "set"
    folder.mkdir()
    recall = (sys.executable, "-m", "recall.cli")
    rows = folder / "tasks.jsonl"
    subprocess.run([*recall, "synth", "nano", str(rows), "--rows", "24"], check=True, capture_output=True)
    command = [*recall, "data", "report", str(rows), "--json", "--sample", "4"]
    done = subprocess.run(command, check=False, capture_output=True)
    (folder / "report.json").write_bytes(done.stdout)


def main() -> None:
    """Make everything in the directory that is named."""
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    for seed in range(3):
        make_run(root / f"seed-{seed}", seed=seed)
        (root / f"seed-{seed}" / "config.toml").write_text(
            f'steps = 240\nseed = {seed}\n[learner]\nalgorithm = "dapo"\n'
        )
    make_run(root / "slower", seed=9, steps=200)
    (root / "slower" / "config.toml").write_text('steps = 200\nseed = 9\n[learner]\nalgorithm = "rloo"\n')
    write_report(root / "seed-0")
    hostile(root)
    long(root)
    evaluations(root)
    report(root)


if __name__ == "__main__":
    main()
