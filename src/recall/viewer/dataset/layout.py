"""What a report on a set says, in order: sections of tables and charts. Neither terminal nor page is known here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_ROWS = 16
"""A table of templates, shards or failures shows so many rows, and says how many there are."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text."""

    title: str
    """What stands above; empty where the section's title says it."""
    head: tuple[str, ...]
    """The names of the columns; the first is of text, the others of numbers unless they end in a space."""
    rows: Sequence[tuple[str, ...]]
    """The cells."""
    bad: frozenset[int] = frozenset()
    """The rows that break a gate."""
    note: str = ""
    """What stands below."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts of numbers, or of names."""

    title: str
    """What is counted."""
    bars: Sequence[tuple[float | str, float]]
    """Each number, the lower end of a bar, or name, with its count."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts by two names."""

    title: str
    """What is counted."""
    rows: Sequence[str]
    """Names of the rows."""
    columns: Sequence[str]
    """Names of the columns."""
    counts: Sequence[Sequence[int]]
    """[rows][columns]."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report."""

    anchor: str
    """Its name in links."""
    title: str
    """Its title."""
    lead: str = ""
    """A sentence or two under it."""
    tables: Sequence[Table] = ()
    """Its tables."""
    charts: Sequence[Bars | Matrix] = field(default_factory=tuple)
    """Its charts; a terminal leaves them out."""


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Everything that the report says."""
    made = (
        _gates(report),
        _sizes(report),
        _acceptance(report),
        _shapes(report),
        _answers(report),
        _guesses(report),
        _tools(report),
        _replay(report),
        _tokens(report),
        _asked(report),
        _overlap(report),
        _source(report),
    )
    return [section for section in made if section is not None]


def verdict(report: Mapping[str, Any]) -> str:
    """The report in one sentence."""
    broken = [gate["name"] for gate in report["gates"] if gate["broken"]]
    if not broken:
        return f"All gates hold on {report['rows']:,} tasks."
    return f"{len(broken)} of {len(report['gates'])} gates {'are' if len(broken) > 1 else 'is'} broken: " + (
        f"{', '.join(broken)}."
    )


def share(value: float | None, places: int = 1) -> str:
    """A share for people; one that is not zero never reads as zero, nor one short of all as all."""
    if value is None:
        return "-"
    text = f"{value:.{places}%}"
    if 0 < value < 1 and places < 4 and text in (f"{0:.{places}%}", f"{1:.{places}%}"):
        return share(value, places + 1)
    return text


def number(value: float | None) -> str:
    """A number for people."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def _gates(report: Mapping[str, Any]) -> Section:
    rows, bad = [], set()
    for place, gate in enumerate(report["gates"]):
        found = share(gate["value"], 2) if gate["unit"] == "share" else number(gate["value"])
        state = "BROKEN" if gate["broken"] else "holds" if gate["value"] is not None else "not measured"
        basis = gate["basis"] + (f". {gate['detail']}" if gate["detail"] and gate["broken"] else "")
        rows.append((gate["name"], state, found, gate["accepts"], basis))
        if gate["broken"]:
            bad.add(place)
    looked = report["looked_at"]
    lead = (
        f"Sizes, answers, constants, echoes and overlaps are of all {report['rows']:,} rows. Replays, determinism, "
        f"provenance and copied results are of {looked['replayed']:,} tasks, drawn by the seed {looked['sample_seed']}."
    )
    here = report["answers"]
    anchors = [("this set", here["in_question"], here["top"][0]["share"] if here["top"] else None)]
    anchors += [(anchor["set"], anchor["in_question"], anchor["constant"]) for anchor in report["anchors"]]
    beside = Table(
        "Beside sets that people wrote",
        ("set", "answer in question", "best constant"),
        [(name, share(inside), share(constant)) for name, inside, constant in anchors],
        note="An answer in the question stands there word for word. The others were measured on their own files.",
    )
    head = ("gate", "state ", "found", "accepted ", "measured on ")
    return Section("gates", "Gates", lead, (Table("", head, rows, frozenset(bad)), beside))


def _sizes(report: Mapping[str, Any]) -> Section:
    distinct = [(name, number(count)) for name, count in report["overlap"]["distinct"].items() if count is not None]
    tables = [Table("Distinct", ("of", "number"), [("task", f"{report['rows']:,}"), *distinct])]
    charts = []
    for name, mix in report["mixes"].items():
        parts = list(mix["parts"].items()) + ([("all others", mix["others"])] if mix["others"] else [])
        if len(parts) > 1 or name == "split":
            rows = [(part, f"{count:,}", share(count / report["rows"])) for part, count in parts[:MOST_ROWS]]
            more = f"The largest of {mix['distinct']}." if mix["distinct"] > len(rows) else ""
            tables.append(Table(f"By {name}", (name, "tasks", "share"), rows, note=more))
            charts.append(Bars(f"By {name}", parts[:24]))
    return Section("sizes", "Sizes and mixes", "", tables, charts)


def _acceptance(report: Mapping[str, Any]) -> Section | None:
    tried = report["source"].get("tried")
    if not tried:
        return None
    rejected: Mapping[str, Mapping[str, int]] = report["source"]["rejected"]
    rows = [
        (gate, reason, f"{count:,}", share(count / tried, 2))
        for gate, reasons in rejected.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    lead = f"{tried:,} attempts made {report['source']['made']:,} tasks: {share(report['source']['made'] / tried)}."
    charts = (Bars("Rejected by certificate", [(gate, sum(reasons.values())) for gate, reasons in rejected.items()]),)
    table = Table("", ("certificate", "reason ", "attempts", "share of all"), rows)
    return Section("acceptance", "Acceptance by certificate", lead, (table,), charts if rows else ())


def _shapes(report: Mapping[str, Any]) -> Section:
    claims = report["claims"]
    spreads = {**report["shapes"], "turns (claimed)": claims["turns"], "difficulty (claimed)": claims["difficulty"]}
    table = _spread_table("", spreads)
    shortest, levels = claims["shortest_is_calls"], claims["levels"]
    rows = [("shortest solution is the reference", share(shortest["share"]), f"{shortest['tasks']:,}")]
    counter = claims["counterfactual"]
    rows.append(("answer changes with the world", share(counter["share"]), f"{counter['tasks']:,}"))
    claimed = Table("Claimed by the generator", ("claim", "share", "tasks"), rows)
    more = [
        Table(title, ("what", "number"), [(name, f"{count:,}") for name, count in counts.items()])
        for title, counts in (("Distractors (claimed)", claims["distractors"]), ("Levels (claimed)", levels))
        if counts
    ]
    lead = (
        "Calls, depth and width are those of the reference programs. Depth is the longest chain of calls that need "
        "each other: the fewest turns that make all calls, where calls of one turn run in parallel."
    )
    return Section("shapes", "Difficulty", lead, (table, claimed, *more), _histograms(spreads))


def _answers(report: Mapping[str, Any]) -> Section:
    answers = report["answers"]
    facts = [
        ("tasks with an answer", f"{answers['tasks']:,}"),
        ("distinct answers", f"{answers['distinct']:,}"),
        ("entropy, bits", f"{answers['entropy_bits']:.2f}"),
        ("answer in question", share(answers["in_question"], 2)),
    ]
    top = [(case["answer"][:60], share(case["share"], 2)) for case in answers["top"]]
    tables = (Table("", ("measure", "value"), facts), Table("Most frequent", ("answer", "share"), top))
    return Section("answers", "Answers", "", tables)


_RULES = {"constant": "constant", "echo": "echo", "single_call": "single call", "last_observation": "last observation"}


def _guesses(report: Mapping[str, Any]) -> Section:
    lead = (
        "What guessing earns, by equality and by the reward that the row asks for, whichever is more. Constant: the "
        "best answer of all. Echo: a value copied from the question. Single call: the result of one first call. Last "
        "observation: the last result before the answer is known. Tasks of one call are left out of the last two, as "
        "their call is the solution. Of fewer than 50 tasks, a share says nothing."
    )
    families = _group_table("By family", report["families"], MOST_ROWS)
    worst = sorted(report["templates"], key=lambda group: (-len(group["guessable"]), -_worst(group)))
    tables = [families, _group_table("By kind, the worst first", sorted(report["kinds"], key=_order), MOST_ROWS)]
    tables.append(_group_table("By template, the worst first", worst, MOST_ROWS))
    return Section("guesses", "Guesses", lead, tables)


def _order(group: Mapping[str, Any]) -> tuple[int, float]:
    return -len(group["guessable"]), -_worst(group)


def _worst(group: Mapping[str, Any]) -> float:
    """The most that a guess earns of a group that is large enough to tell."""
    rates = [group[rule] for rule in _RULES if group[rule] and group[rule]["tasks"] >= 50]
    return max((max(rate["right"], rate["reward"]) for rate in rates), default=0.0)


def _group_table(title: str, groups: Sequence[Mapping[str, Any]], most: int) -> Table:
    rows = []
    for group in groups[:most]:
        rates = [group[rule] for rule in _RULES]
        cells = [share(max(rate["right"], rate["reward"])) if rate else "-" for rate in rates]
        rows.append(
            (
                group["name"],
                f"{group['tasks']:,}",
                f"{group['entropy_bits']:.1f}",
                *cells,
                f"{group['replayed']:,}",
                ", ".join(_RULES[rule] for rule in group["guessable"]),
            )
        )
    head = ("of", "tasks", "bits", *_RULES.values(), "replayed", "falls to ")
    bad = frozenset(place for place, group in enumerate(groups[:most]) if group["guessable"])
    return Table(title, head, rows, bad, f"{most} of {len(groups):,}." if len(groups) > most else "")


def _tools(report: Mapping[str, Any]) -> Section:
    use, matrix = report["tool_use"], report["operators"]
    facts = [
        ("names of tools shown", f"{use['names']:,}"),
        ("of these called by a reference", f"{use['called']:,}"),
        ("Gini coefficient of calls by name", f"{use['gini']:.3f}"),
    ]
    head = ("operator", *matrix["splits"])
    rows = [
        (name, *(f"{count:,}" for count in counts))
        for name, counts in zip(matrix["names"], matrix["counts"], strict=True)
    ]
    tables = (Table("", ("measure", "value"), facts), Table("Tasks with an operator, by split", head, rows))
    chart = Matrix("Tasks with an operator, by split", matrix["names"], matrix["splits"], matrix["counts"])
    lead = "Operators are those that the reference works out in the head, and those that the generator names."
    return Section("tools", "Tools and operators", lead, tables, (chart,) if matrix["names"] else ())


def _replay(report: Mapping[str, Any]) -> Section | None:
    found = report["replay"]
    if found is None:
        return None
    facts = [
        ("reference programs played", f"{found['tasks']:,} of {found['of']:,}"),
        ("solved their task", share(found["solved"], 2)),
        ("the same bytes in a second process", share(found["same"], 2)),
        ("calls", f"{found['calls']:,}"),
        ("calls made again after a failure", f"{found['again']:,}"),
        ("calls with a falsy result, which the published sandbox hid", share(found["falsy"], 2)),
        ("arguments that the programs state", f"{found['provenance']['arguments']:,}"),
        ("of these offered by the tool's schema", f"{found['provenance']['from_schema']:,}"),
        ("of these from nowhere", f"{found['provenance']['violations']:,}"),
    ]
    tables = [Table("", ("measure", "value"), facts), _spread_table("", {"milliseconds a call": found["call_ms"]})]
    tables.append(Table("How calls ended", ("status", "calls"), [(k, f"{v:,}") for k, v in found["statuses"].items()]))
    if found["failures"]:
        rows = [(case["task"], case["problem"]) for case in found["failures"][:MOST_ROWS]]
        tables.append(Table("Not solved", ("task", "problem "), rows, frozenset(range(len(rows)))))
    if found["provenance"]["examples"]:
        rows = [(case["task"], case["argument"]) for case in found["provenance"]["examples"][:MOST_ROWS]]
        tables.append(Table("Arguments from nowhere", ("task", "argument "), rows, frozenset(range(len(rows)))))
    lead = "Played in the real sandbox, through the environment of an episode, in two processes that share nothing."
    return Section("replay", "Replay", lead, tables, _histograms({"milliseconds a call": found["call_ms"]}))


def _tokens(report: Mapping[str, Any]) -> Section | None:
    found = report["tokens"]
    if found is None:
        return None
    spreads = {f"{name} tokens": found[name] for name in ("schema", "question", "prompt", "observation")}
    lead = (
        f"Counted with {found['tokenizer']} on {found['tasks']:,} tasks. {share(found['over'])} of the prompts exceed "
        f"{found['max_prompt_tokens']:,} tokens. Observations are those of the replayed calls."
    )
    return Section("tokens", "Tokens", lead, (_spread_table("", spreads),), _histograms(spreads))


def _asked(report: Mapping[str, Any]) -> Section | None:
    found = report["asked"]
    if found is None:
        return None
    guessed = found["without_tools"]
    facts = [
        ("tasks", number(found["tasks"])),
        ("solved with tools, one episode", share(found["pass_at_1"])),
        (f"solved with tools, any of {found['samples']}", share(found["pass_at_k"])),
        ("answered without tools, one answer", share(guessed["pass_at_1"])),
        (f"answered without tools, any of {found['guesses']}", share(guessed["pass_at_k"])),
        ("tasks of which all episodes give one answer", share(found["agreement"])),
        ("calls of a solution, per call of the reference", number(found["over_calls"])),
        ("malformed calls", share(found["malformed_calls"])),
        ("episodes without an answer", share(found["unanswered"])),
        ("tasks that the endpoint refused", number(found["refused"])),
    ]
    rows = [(f"{depth}", f"{count:,}", share(rate)) for depth, count, rate in found["by_calls"]]
    tables = (Table("", ("measure", "value"), facts), Table("By calls", ("calls", "episodes", "solved"), rows))
    return Section("asked", "Model", f"What {found['model']} makes of a part of the sample.", tables)


def _overlap(report: Mapping[str, Any]) -> Section:
    found = report["overlap"]
    rows = [(" and ".join(case["splits"]), case["what"], f"{case['count']:,}") for case in found["shared"]]
    facts = [("questions of which another is a near duplicate", share(found["near_duplicates"], 2))]
    facts.append(("questions compared, by Jaccard above 0.8 of runs of 3 words", f"{found['rows']:,}"))
    tables = [Table("", ("measure", "value"), facts)]
    if rows:
        tables.append(Table("Shared by two splits", ("splits", "what ", "number"), rows, frozenset(range(len(rows)))))
    for other in found["against"]:
        facts = [
            ("its questions", f"{other['questions']:,}"),
            (f"tasks that share {other['words']} words in a row with one", share(other["share"], 2)),
            ("names of tools in both", f"{other['tool_names_shared']:,}"),
        ]
        note = ", ".join(other["tool_names"])
        tables.append(Table(f"Against {other['file']}", ("measure", "value"), facts, note=note))
    return Section("overlap", "Overlap", "", tables)


def _source(report: Mapping[str, Any]) -> Section:
    source = report["source"]
    hidden = ("recipe", "shards", "rejected")
    facts = [(name.replace("_", " "), str(value)) for name, value in source.items() if name not in hidden]
    facts.append(("reported with ReCall", report["version"]))
    tables = [Table("", ("what", "value "), facts)]
    if source.get("recipe"):
        tables.append(Table("Recipe", ("setting", "value "), [(k, str(v)) for k, v in source["recipe"].items()]))
    shards = source.get("shards", ())
    if shards:
        rows = [(shard["file"], f"{shard['rows']:,}", shard["sha256"]) for shard in shards[:MOST_ROWS]]
        note = f"{MOST_ROWS} of {len(shards):,}; the manifest has all." if len(shards) > MOST_ROWS else ""
        tables.append(Table("Files", ("file", "rows", "SHA-256 "), rows, note=note))
    return Section("source", "Source", "", tables)


def _spread_table(title: str, spreads: Mapping[str, Mapping[str, Any] | None]) -> Table:
    names = ("min", "mean", "p50", "p95", "max")
    rows = [
        (name, *(number(found[each]) for each in names), f"{found['n']:,}") for name, found in spreads.items() if found
    ]
    return Table(title, ("of", *names, "values"), rows)


def _histograms(spreads: Mapping[str, Mapping[str, Any] | None]) -> tuple[Bars, ...]:
    return tuple(
        Bars(name[:1].upper() + name[1:], found["bars"])
        for name, found in spreads.items()
        if found and len(found["bars"]) > 1
    )
