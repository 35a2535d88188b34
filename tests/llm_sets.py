"""Makes small sets with a scripted endpoint, with few worlds for each certificate, and reads what lies beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_marina import RATE, fenced
from llm_server import ChatServer
from recall.synth.llm.client import EndpointSettings
from recall.synth.llm.make import SIDECAR, CostSettings, Outcome, make_set
from recall.synth.llm.recipe import LLMRecipe

CERTIFICATES: Mapping[str, Any] = {
    "counterfactual_worlds": 3,
    "guess_worlds": 10,
    "most_guessed": 0.2,
    "search_calls": 100,
}
SOLVERS: Mapping[str, Any] = {"guesses": 2, "solvers": 2, "most_solved": 2}
QUICK: Mapping[str, Mapping[str, Any]] = {
    "certificates": CERTIFICATES,
    "solvers": SOLVERS,
    "author": {"repairs": 0},
}
"""A recipe that takes what comes at the first attempt."""
ONE_BY_ONE: Mapping[str, Any] = {"worlds_at_once": 1}
ONE_TASK = fenced("json", json.dumps([RATE]))


async def make(
    server: ChatServer,
    out: Path,
    *,
    rows: int = 1,
    recipe: Mapping[str, Any] = QUICK,
    cost: Mapping[str, Any] = ONE_BY_ONE,
    **endpoint: Any,
) -> Outcome:
    """Make a set with the server's model."""
    where = EndpointSettings(base_url=server.url, model="m", **endpoint)
    made_with, may_cost = LLMRecipe.model_validate(recipe), CostSettings.model_validate(cost)
    return await make_set(out, where, where, made_with, may_cost, rows=rows, seed=0)


def verdicts(out: Path) -> list[dict[str, Any]]:
    """What was said of each world."""
    return [json.loads(line) for line in (out / SIDECAR / "verdicts.jsonl").read_text().splitlines()]


def replies(out: Path) -> list[dict[str, Any]]:
    """Every request with its reply."""
    return [json.loads(line) for line in (out / SIDECAR / "replies.jsonl").read_text().splitlines()]


def asked_once(server: ChatServer) -> bool:
    """Whether no request came twice."""
    bodies = [json.dumps(body, sort_keys=True) for body in server.requests]
    return len(bodies) == len(set(bodies))
