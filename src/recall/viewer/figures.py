"""The report's headline and curves as HTML. Numbers in, markup out; which names a run's metrics have is known here."""

from collections.abc import Sequence

from recall.viewer.record import RunRecord, sort_kinds, validation_success
from recall.viewer.svg import SMOOTHING, Series, Unit, area_chart, line_chart
from recall.viewer.text import escape

_CURVES: tuple[tuple[str, Unit, tuple[tuple[str, str], ...]], ...] = (
    ("Reward", "number", (("mean", "reward/mean"), ("std", "reward/std"))),
    ("Entropy, nats a token", "number", (("entropy", "policy/entropy"),)),
    ("Calls and turns a trajectory", "number", (("calls", "rollout/calls_mean"), ("turns", "rollout/turns_mean"))),
    ("Tokens a second", "number", (("tokens/s", "rollout/tokens_per_s"),)),
    (
        "Share of trajectories",
        "share",
        (("malformed", "rollout/malformed"), ("truncated", "rollout/truncated"), ("our faults", "rollout/faults")),
    ),
    ("Gradient norm", "number", (("norm", "policy/grad_norm"),)),
    ("Divergence from the old policy, nats", "number", (("KL", "policy/kl_old"),)),
    ("Clipped tokens", "share", (("clipped", "policy/clip_fraction"),)),
    ("Loss", "number", (("loss", "policy/loss"),)),
)
"""Title, unit, and the lines (name, metric) of each plain chart."""


def calls(kind: str) -> str:
    """A kind of task for people: `1 call`, `3 calls`, `join`."""
    return f"{kind} call{'s' if kind != '1' else ''}" if kind.isdecimal() else kind


def headline_section(record: RunRecord) -> str:
    """The result in one sentence, the facts of the run, and success before and after by kind."""
    facts = "".join(
        f'<div class="fact"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in _facts(record)
    )
    tables = "".join(_success_table(record, mode) for mode in _modes(record))
    command = record.summary.get("command")
    shown = f'<pre class="command"><code>{escape(command)}</code></pre>' if isinstance(command, str) else ""
    return (
        f'<section id="headline">{_sentence(record)}<dl class="facts-row">{facts}</dl>{shown}'
        f'<div class="tables">{tables}</div></section>'
    )


def curves_section(record: RunRecord) -> str:
    """Every curve that the run has the numbers for."""
    charts = [*_validation_charts(record)]
    kinds = record.names("success/by/")
    lines = [Series(calls(n.rsplit("/", 1)[1]), record.series(n), i) for i, n in enumerate(kinds)]
    charts.append(_lines("Success while training, sampled", "percent", lines))
    charts += [
        _lines(title, unit, [Series(name, record.series(metric), i) for i, (name, metric) in enumerate(lines)])
        for title, unit, lines in _CURVES[:4]
    ]
    charts += [_time_split(record), _groups(record)]
    charts += [
        _lines(title, unit, [Series(name, record.series(metric), i) for i, (name, metric) in enumerate(lines)])
        for title, unit, lines in _CURVES[4:]
    ]
    body = "".join(charts)
    if not body:
        return ""
    slider = f'<input type="range" min="0" max="0.97" step="0.01" value="{SMOOTHING}">'
    return (
        '<section id="curves"><div class="title"><h2>Curves</h2>'
        f'<label class="smoothing js">Smoothing {slider}</label></div><div class="charts">{body}</div></section>'
    )


def _modes(record: RunRecord) -> list[str]:
    # What the policy does when it samples is what it was trained for; greedy comes second.
    return sorted({*record.before, *record.after}, key=lambda mode: (not mode.endswith("sampled"), mode))


def _mode_name(mode: str) -> str:
    return mode.replace("/", ", ").capitalize() or "Success"


def _sentence(record: RunRecord) -> str:
    for mode in _modes(record):
        before, after = record.before.get(mode, {}), record.after.get(mode, {})
        shared = [kind for kind in sort_kinds(before) if kind in after]
        if shared:
            start, end = (sum(rates[kind] for kind in shared) / len(shared) for rates in (before, after))
            return (
                f'<h1>Held-out success <span class="from">{start:.0%}</span> <span class="arrow">→</span>'
                f' <span class="to">{end:.0%}</span></h1>'
                f'<p class="lead">{escape(_mode_name(mode))} before training and after, mean over kinds of task.</p>'
            )
    return f"<h1>Run {escape(record.path.resolve().name)}</h1>"


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    facts = []
    minutes = record.minutes()
    if minutes is not None:
        facts.append(("time", f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"))
    steps = record.summary.get("steps", record.rows[-1]["step"] if record.rows else None)
    for name, value in (("steps", steps), *((n, record.summary.get(n)) for n in ("trajectories", "seed"))):
        if isinstance(value, int | float):
            facts.append((name, f"{value:,.0f}" if name != "seed" else f"{value:.0f}"))
    known = {"before", "after", "minutes", "steps", "trajectories", "seed", "command"}
    facts += [
        (name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in record.summary.items()
        if name not in known and isinstance(value, str | int | float) and len(str(value)) <= 40
    ]
    return facts[:8]


def _success_table(record: RunRecord, mode: str) -> str:
    before, after = record.before.get(mode, {}), record.after.get(mode, {})
    rows = "".join(_success_row(kind, before.get(kind), after.get(kind)) for kind in sort_kinds({*before, *after}))
    title = _mode_name(mode)
    return (
        f'<table class="success"><caption>{escape(title)}</caption><thead><tr><th scope="col">task</th>'
        '<th scope="col">before</th><th scope="col">after</th><th scope="col">change</th>'
        '<th scope="col" class="track-head"><span>0%</span><span>50%</span><span>100%</span></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _success_row(kind: str, before: float | None, after: float | None) -> str:
    change, tone = "", ""
    if before is not None and after is not None:
        points = 100 * (after - before)
        change, tone = f"{points:+.0f}", "up" if points >= 0.5 else "down" if points <= -0.5 else "same"
    low, high = sorted(100 * value for value in (before or 0.0, after or 0.0))
    marks = f'<span class="span {tone}" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>' if change else ""
    for name, value in (("before", before), ("after", after)):
        marks += "" if value is None else f'<span class="mark {name} {tone}" style="left:{100 * value:.1f}%"></span>'
    cells = "".join(f"<td>{'' if value is None else f'{value:.0%}'}</td>" for value in (before, after))
    return (
        f'<tr><th scope="row">{escape(calls(kind))}</th>{cells}<td class="change {tone}">{change}</td>'
        f'<td class="track" aria-hidden="true"><div>{marks}</div></td></tr>'
    )


def _validation_charts(record: RunRecord) -> list[str]:
    found = validation_success(record.rows)
    charts = []
    modes = sorted(
        {mode for _, rates in found for mode in rates}, key=lambda mode: (not mode.endswith("sampled"), mode)
    )
    for mode in modes:
        kinds = sort_kinds({kind for _, rates in found for kind in rates.get(mode, {})})
        lines = [
            Series(
                calls(kind),
                [(row["step"], rates[mode][kind]) for row, rates in found if kind in rates.get(mode, {})],
                i,
            )
            for i, kind in enumerate(kinds)
        ]
        charts.append(_lines(f"Held-out success, {_mode_name(mode).lower()}", "percent", lines, marks=True, wide=True))
    return charts


def _time_split(record: RunRecord) -> str:
    names = ("time/rollout_s", "time/update_s", "time/step_s")
    rows = [row for row in record.rows if all(name in row for name in names)]
    parts: list[tuple[str, list[tuple[float, float]]]] = [
        ("rollout", [(row["step"], row["time/rollout_s"]) for row in rows]),
        ("update", [(row["step"], row["time/update_s"]) for row in rows]),
        ("rest", [(row["step"], max(0.0, row[names[2]] - row[names[0]] - row[names[1]])) for row in rows]),
    ]
    return _areas("Seconds a step", "seconds", [Series(name, points, i) for i, (name, points) in enumerate(parts)])


def _groups(record: RunRecord) -> str:
    names = (("with a signal", "groups/used"), ("no variance", "groups/zero_variance"))
    rows = [row for row in record.rows if all(metric in row for _, metric in names)]
    lines = [
        Series(name, [(r["step"], r[metric]) for r in rows], c) for c, (name, metric) in zip((1, 7), names, strict=True)
    ]
    return _areas("Groups by variance of reward", "number", lines)


def _lines(title: str, unit: Unit, series: Sequence[Series], *, marks: bool = False, wide: bool = False) -> str:
    series = [one for one in series if one.points]
    if not series:
        return ""
    label = f"{title}, over training steps: {', '.join(one.name for one in series)}"
    narrow = line_chart(series, unit=unit, label=label, marks=marks)
    large = line_chart(series, unit=unit, label=label, marks=marks, width=610, height=260) if wide else ""
    return _figure(title, series, narrow, large)


def _areas(title: str, unit: Unit, series: Sequence[Series]) -> str:
    if not all(one.points for one in series):
        return ""
    return _figure(title, series, area_chart(series, unit=unit, label=f"{title}, stacked over training steps"), "")


def _figure(title: str, series: Sequence[Series], narrow: str, large: str) -> str:
    legend = "".join(f'<li class="c{one.colour}"><i></i>{escape(one.name)}</li>' for one in series)
    legend = f"<ul>{legend}</ul>" if len(series) > 1 else ""
    drawn = f'<div class="narrow">{narrow}</div><div class="large">{large}</div>' if large else narrow
    caption = f"<figcaption>{escape(title)}{legend}</figcaption>"
    return f'<figure class="chart{" wide" if large else ""}">{caption}{drawn}</figure>'
