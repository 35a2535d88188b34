"""Writes `report.html`, one file that shows a run: what it learned, its curves, and trajectories to read.

The file loads nothing: styles, script, charts and data stand in it, and a content security policy lets no other script
run. Text and charts are there without the script, which adds reading values off, smoothing, filters and the view of
tokens that the window has.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recall.store import Run, read_groups, write_atomic
from recall.types import Task, Trajectory
from recall.viewer.figures import calls, curves_section, headline_section
from recall.viewer.record import RunRecord, read_run, sort_kinds
from recall.viewer.sample import (
    MAX_PAIRS,
    Pair,
    Pick,
    choose_groups,
    choose_members,
    kind_of,
    pair_up,
    spread,
)
from recall.viewer.text import escape
from recall.viewer.transcript import Decode, cut_text, marked, token_data, trajectory_html
from recall.viewer.window.assets import bundle, page_files, sha256

MAX_BYTES = 2_800_000
"""The report is at most about this large, in bytes; groups that do not fit are left out and counted."""

_STORY = {
    "learned": "wrong before, right after",
    "unsolved": "wrong before and after",
    "kept": "right before and after",
    "lost": "right before, wrong after",
}
_WHY = {"best": "highest mean reward", "worst": "lowest mean reward", "mixed": "most mixed rewards"}


def write_report(run_dir: Path, *, decode: Decode | None = None) -> Path:
    """Write `report.html` into a run directory and return its path.

    Args:
        run_dir: a directory that `recall train` wrote; it may still be writing.
        decode: token ids to text, for the token view; None looks for a `tokenizer.json` in the run directory.

    Raises:
        ConfigError: it is not a run directory, or a file in it is damaged.
    """
    record = read_run(run_dir)
    before = headline_section(record) + curves_section(record)
    reader = _Reader(decode or find_decoder(run_dir), MAX_BYTES - len(before.encode()) - len(record.config.encode()))
    trajectories = reader.section(Run(run_dir))
    page = _page(record, before + trajectories + _settings(record), reader.data)
    out = run_dir / "report.html"
    write_atomic(out, lambda file: file.write(page.encode()))
    return out


def find_decoder(run_dir: Path) -> Decode | None:
    """The decoder of the run's own `tokenizer.json`; None where there is none or `tokenizers` is not installed."""
    found = [path for depth in ("", "*/", "*/*/") for path in sorted(run_dir.glob(f"{depth}tokenizer.json"))]
    if not found or importlib.util.find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(found[-1]))

    def decode(token_ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    return decode


class _Reader:
    """Collects the trajectories of a report until its room is used up: HTML to read, tokens as data."""

    def __init__(self, decode: Decode | None, room: int) -> None:
        self.data: dict[str, Any] = {"tokenizer": decode is not None, "prompts": {}, "trajectories": {}}
        self._decode = decode
        self._room = room
        self._left_out = 0
        self._kinds: set[str] = set()
        self._splits: set[str] = set()

    def section(self, run: Run) -> str:
        """The whole section of trajectories."""
        files = run.trajectory_files()
        pairs: list[Pair] = []
        splits = sorted({file.split for file in files} - {"train"})
        for split in splits:
            played = [file.path for file in files if file.split == split]
            if len(played) > 1:
                pairs += pair_up(read_groups(played[0]), read_groups(played[-1]), MAX_PAIRS // len(splits))
        body = "".join(self._pair(number, pair) for number, pair in enumerate(pairs))
        if body:
            intro = "The same held-out task, played by the first weights and by the last."
            body = f'<div class="batch"><h3>Before and after</h3><p class="lead">{intro}</p>{body}</div>'
        paths = {file.step: file.path for file in files if file.split == "train"}
        steps = ""
        for step in spread(paths):
            picks = choose_groups(read_groups(paths[step]))
            groups = "".join(self._pick(step, pick) for pick in picks)
            steps += f'<div class="batch"><h4>Step {step}</h4>{groups}</div>' if groups else ""
        if steps:
            intro = "Of a few steps, three groups each: of highest and lowest mean reward, and of most mixed rewards."
            body += f'<div class="batch"><h3>While training</h3><p class="lead">{intro}</p>{steps}</div>'
        if not body:
            return ""
        notes = [f"{self._left_out} groups are left out to keep this file small."] if self._left_out else []
        if self._decode is None:
            notes.append("The run directory holds no tokenizer, so the token view may show ids.")
        note = f'<p class="lead">{" ".join(notes)}</p>' if notes else ""
        empty = '<p class="empty" hidden>Nothing matches these filters.</p>'
        return f'<section id="trajectories"><h2>Trajectories</h2>{self._filters()}{body}{empty}{note}</section>'

    def _pair(self, number: int, pair: Pair) -> str:
        key = f"p{number}"
        articles, tokens = [], {}
        for title, (trajectory, reward) in (("Before", pair.before), ("After", pair.after)):
            name = f"{key}{title[0]}"
            articles.append(trajectory_html(trajectory, reward, key=name, title=title, level=4))
            tokens[name] = self._tokens(key, trajectory, None)
        verdicts = "".join(_dot(reward.correct) for _, reward in (pair.before, pair.after))
        prompt = pair.after[0].segments[:1]
        summary = f'<span class="dots2" title="{_STORY[pair.story]}">{verdicts}</span>'
        head = _head(pair.task, pair.split, summary, pair.story, prompt[0].text if prompt else "")
        body = f'<div class="two">{"".join(articles)}</div>'
        return self._group(pair.task, pair.split, key, head, body, tokens, prompt, opened=number == 0)

    def _pick(self, step: int, pick: Pick) -> str:
        stored, key = pick.stored, f"s{step}{pick.why}"
        group = stored.group
        articles, tokens = [], {}
        members = choose_members(stored)
        for index in members:
            trajectory, reward = group.trajectories[index], group.rewards[index]
            advantage = None if stored.advantages is None else stored.advantages[index]
            name, title = f"{key}-{index}", f"{index + 1} of {len(group.trajectories)}"
            articles.append(trajectory_html(trajectory, reward, key=name, title=title, level=5, advantage=advantage))
            tokens[name] = self._tokens(key, trajectory, advantage)
        order = sorted(group.rewards, key=lambda reward: -reward.score)
        dots = "".join(_dot(reward.correct) for reward in order)
        prompt = group.trajectories[0].segments[:1]
        summary = f'<span class="dots2" title="each trajectory of the group, right or wrong">{dots}</span>'
        head = _head(group.task, stored.split, summary, _WHY[pick.why], prompt[0].text if prompt else "")
        body = f'<div class="two">{"".join(articles)}</div>'
        return self._group(group.task, stored.split, key, head, body, tokens, prompt)

    def _tokens(self, key: str, trajectory: Trajectory, advantage: float | None) -> dict[str, Any]:
        segments = token_data(trajectory.segments[1:], self._decode)
        return {"prompt": key, "advantage": None if advantage is None else round(advantage, 4), "segments": segments}

    def _group(
        self,
        task: Task,
        split: str,
        key: str,
        head: tuple[str, str],
        body: str,
        tokens: Mapping[str, Any],
        prompt: Sequence[Any],
        *,
        opened: bool = False,
    ) -> str:
        summary, intro = head
        kind = kind_of(task)
        page = (
            f'<details class="group" data-split="{escape(split)}" data-kind="{escape(kind)}"{" open" * opened}>'
            f"<summary>{summary}</summary>{intro}{body}</details>"
        )
        prompt_tokens = token_data(prompt, self._decode)
        size = len(page.encode()) + len(_script_json({**tokens, "prompt": prompt_tokens}))
        if size > self._room:
            self._left_out += 1
            return ""
        self._room -= size
        self._kinds.add(kind)
        self._splits.add(split)
        self.data["trajectories"].update(tokens)
        self.data["prompts"][key] = prompt_tokens
        return page

    def _filters(self) -> str:
        def select(name: str, label: str, values: Sequence[str]) -> str:
            options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
            return f'<label>{label} <select name="{name}"><option value="">all</option>{options}</select></label>'

        return (
            '<form class="filters js" aria-label="filter trajectories">'
            + select("split", "Split", sorted(self._splits))
            + select("kind", "Calls", sort_kinds(self._kinds))
            + select("verdict", "Outcome", ("right", "wrong"))
            + '<button type="button" data-all="open">Open all</button>'
            '<button type="button" data-all="close">Close all</button></form>'
        )


def _head(task: Task, split: str, dots: str, why: str, prompt: str) -> tuple[str, str]:
    truth = " or ".join(task.ground_truth)
    kind = kind_of(task)
    chips = f'<span class="chip">{escape(calls(kind))}</span><span class="chip">{escape(split)}</span>'
    summary = f'{dots}<span class="question">{escape(cut_text(task.question, 160))}</span>'
    summary += f'<span class="chips"><span class="chip why">{escape(why)}</span>{chips}</span>'
    tools = ", ".join(tool.name for tool in task.tools)
    intro = f'<dl class="task"><dt>Question</dt><dd>{escape(cut_text(task.question))}</dd>'
    intro += f"<dt>Accepted</dt><dd><code>{escape(cut_text(truth, 400))}</code></dd>"
    intro += f"<dt>Tools</dt><dd><code>{escape(tools)}</code></dd>" if tools else ""
    intro += "</dl>"
    if prompt:
        intro += f'<details class="prompt"><summary>The prompt</summary><pre>{marked(cut_text(prompt))}</pre></details>'
    return summary, intro


def _dot(correct: bool) -> str:
    return f'<i class="{"right" if correct else "wrong"}">{"✓" if correct else "✗"}</i>'


def _settings(record: RunRecord) -> str:
    parts = []
    if record.config:
        parts.append(f"<details><summary>config.toml</summary><pre>{escape(record.config)}</pre></details>")
    rows = "".join(_metric_row(name, [row[name] for row in record.rows if name in row]) for name in _names(record))
    table = f"<thead><tr><th>metric</th><th>first</th><th>last</th><th>least</th><th>most</th></tr></thead>{rows}"
    parts.append(f'<details><summary>All metrics</summary><div class="scroll"><table>{table}</table></div></details>')
    return f'<section id="settings"><h2>Settings and metrics</h2>{"".join(parts)}</section>'


def _names(record: RunRecord) -> list[str]:
    return sorted({name for row in record.rows for name in row} - {"step"})


def _metric_row(name: str, values: Sequence[float]) -> str:
    cells = "".join(f"<td>{value:.4g}</td>" for value in (values[0], values[-1], min(values), max(values)))
    return f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>"


def _script_json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(record: RunRecord, body: str, data: Mapping[str, Any]) -> str:
    files = resources.files("recall.viewer")
    shared = {name: content.decode() for name, (content, _) in page_files().items()}
    style = shared["theme.css"] + shared["tokens.css"] + files.joinpath("report.css").read_text(encoding="utf-8")
    script = bundle({**shared, "report.js": files.joinpath("report.js").read_text(encoding="utf-8")}, "report")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src '{sha256(script)}'; base-uri 'none'"
    name = escape(record.path.resolve().name)
    links = [("headline", "Result"), ("curves", "Curves"), ("trajectories", "Trajectories"), ("settings", "Settings")]
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links if f'id="{anchor}"' in body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name} · ReCall run report</title><style>{style}</style></head><body>"
        f'<div class="bar"><span class="brand">ReCall</span><span class="run">{name}</span><nav>{nav}</nav></div>'
        f'<main>{body}</main><script type="application/json" id="data">{_script_json(data)}</script>'
        f"<script>{script}</script></body></html>\n"
    )
