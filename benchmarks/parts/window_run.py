"""A run of very many trajectories, made up quickly: lines of a few hundred episodes, with words of their own."""

import json
import random
from pathlib import Path

from recall.store import FORMAT, VERSION, Run

GROUP = 8
GROUPS = 64
"""A step has so many groups of so many trajectories."""
TOOLS = ("city_of", "river_of", "length_of", "search", "add", "lookup_area")
SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vi", "ze", "du", "fo", "gi")


def write_run(path: Path, trajectories: int, seed: int = 0) -> int:
    """Write a run, and return the bytes of its lines before compression.

    Args:
        path: the run directory, made here.
        trajectories: how many, rounded up to whole steps.
        seed: decides all of it.
    """
    import zstandard

    rng = random.Random(seed)
    Run.create(path, f'steps = 1000000\nseed = {seed}\nreward = "exact"\n')
    (path / "trajectories").mkdir()
    episodes = [_episode(rng) for _ in range(512)]
    size = written = step = 0
    compress = zstandard.ZstdCompressor(level=1).compress
    while written < trajectories:
        step += 1
        count = GROUPS * GROUP
        header = {"format": FORMAT, "version": VERSION, "step": step, "split": "train", "trajectories": count}
        lines = [json.dumps(header)]
        for group in range(GROUPS):
            task = step * GROUPS + group
            for place in range(GROUP):
                text = episodes[rng.randrange(512)]
                lines.append(_line(text, group, place, task, rng))
        data = ("\n".join(lines) + "\n").encode()
        (path / "trajectories" / f"step-{step:06d}.jsonl.zst").write_bytes(compress(data))
        size += len(data)
        written += count
    metrics = (json.dumps({"step": n, "reward/mean": n / step, "time/step_s": 5.0}) for n in range(1, step + 1))
    (path / "metrics.jsonl").write_text("\n".join(metrics) + "\n")
    return size


def _line(episode: str, group: int, place: int, task: int, rng: random.Random) -> str:
    score = rng.random()
    of_task = {
        "id": f"train-{task}",
        "question": f"How long is the river of {word(rng)} {task}?",
        "ground_truth": [str(task)],
        "split": "train",
        "depth": 1 + task % 5,
        "kind": f"hop{1 + task % 5}",
    }
    if place == 0:
        of_task |= {"env": "def f():\n    return 1\n", "tools": [], "answer_type": {"kind": "text", "tolerance": 0.0}}
        of_task |= {"data_source": "made", "ability": "re_call", "reference": [], "changes": None, "reward": ""}
        of_task |= {"extra": {}}
    reward = {"score": round(score, 3), "correct": score > 0.5, "parts": {"answer": float(score > 0.5), "format": 0.1}}
    return (
        f'{{"group": {group}, "task": {json.dumps(of_task)}, "task_id": "train-{task}", '
        f"{episode.replace('WORD', f'{word(rng)} {word(rng)}')}, "
        f'"reward": {json.dumps(reward)}, "advantage": {score - 0.5:.6f}}}'
    )


def word(rng: random.Random) -> str:
    """A word of three syllables; there are 1,728."""
    return "".join(rng.choices(SYLLABLES, k=3))


def _episode(rng: random.Random) -> str:
    """What an episode says of itself: a prompt, one to four turns with calls, and an answer."""
    turns = rng.randint(1, 4)
    segments = [_segment("You may call tools.\nHow long is the river?", 80, None, rng)]
    calls = []
    for turn in range(turns):
        tool = rng.choice(TOOLS)
        said = f'<tool_call>\n{{"name": "{tool}", "arguments": {{"of": "WORD"}}}}\n</tool_call>'
        status = rng.choices(("ok", "exception", "malformed", "timeout"), (90, 6, 3, 1))[0]
        segments.append(_segment(said, 22, rng.random(), rng))
        segments.append(_segment("<tool_response>\nWORD\n</tool_response>", 18, None, rng))
        calls.append(
            {"turn": turn, "name": tool, "arguments": {"of": "WORD"}, "result": "WORD", "status": status,
             "duration_s": rng.random() / 50}
        )  # fmt: skip
    segments.append(_segment("It follows from the last result. \\boxed{WORD}", 14, rng.random(), rng))
    fields = {
        "segments": segments,
        "stop_reason": rng.choices(("done", "max_tokens", "max_turns"), (90, 8, 2))[0],
        "answer": "WORD",
        "calls": calls,
        "fault": None,
        "duration_s": round(rng.random() * 4, 3),
        "seed": rng.randrange(2**62),
        "changes": None,
    }
    return json.dumps(fields)[1:-1]


def _segment(text: str, count: int, sampled: float | None, rng: random.Random) -> dict[str, object]:
    ids = [rng.randrange(4096) for _ in range(count)]
    logprobs = None if sampled is None else [-rng.expovariate(4) for _ in ids]
    return {"token_ids": ids, "logprobs": logprobs, "text": text, "policy_version": None if sampled is None else 3}
