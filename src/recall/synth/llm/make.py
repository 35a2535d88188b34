"""Makes a set with a model: the pipeline with everything that it needs, and then the writer.

Beside the shards, `DIR/sidecar` holds `replies.jsonl`, every request with what was answered, and `verdicts.jsonl`,
every world with what was said of it. The set is written from these alone, so it can be interrupted anywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from recall.config import Settings
from recall.datasets.sets import Manifest
from recall.sandbox.local import LocalSandbox
from recall.synth.llm.author import Author
from recall.synth.llm.bench import Bench
from recall.synth.llm.budget import Budget
from recall.synth.llm.client import ChatClient, EndpointSettings, Replies
from recall.synth.llm.journal import Journal
from recall.synth.llm.pipeline import Pipeline, Watch, Workshop
from recall.synth.llm.recipe import LLMRecipe
from recall.synth.llm.solvers import Solvers
from recall.synth.made import Made
from recall.synth.writer import write_set

SIDECAR = "sidecar"
"""The directory, within that of the set, of everything that is not a row."""
KIND = "llm"
"""What the manifest of such a set says."""


class CostSettings(Settings):
    """What a set may cost. None of it decides what is made."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens that all runs on the directory may use, prompts included; none sets no limit."""
    max_requests: int | None = Field(default=None, ge=1)
    """Requests that this run may send, failed ones included; none sets no limit."""
    max_worlds: int | None = Field(default=None, ge=1)
    """Worlds that are tried at most; none tries four for each row wanted, and sixteen more."""
    most_barren: int = Field(default=25, ge=1)
    """Worlds without a row, one after the other, after which the run gives up."""
    worlds_at_once: int = Field(default=8, ge=1, le=256)
    """Worlds under way at once."""
    sessions: int = Field(default=8, ge=1, le=512)
    """Sandbox sessions at once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    manifest: Manifest
    """Of the set."""
    ended: str
    """Why there are fewer rows than wanted; empty where there are not."""
    worlds: int
    """Worlds finished, over all runs."""
    tokens: int
    """Tokens used, over all runs."""
    requests: int
    """Requests that this run sent."""


async def make_set(
    directory: Path,
    endpoint: EndpointSettings,
    second: EndpointSettings,
    recipe: LLMRecipe,
    cost: CostSettings,
    *,
    rows: int,
    seed: int,
    on_world: Watch | None = None,
) -> Outcome:
    """Make a set, or go on with one.

    Args:
        directory: of the set.
        endpoint: the model that writes, guesses and plays.
        second: the model that writes programs of its own.
        recipe: what the set is made with.
        cost: what it may cost.
        rows: wanted in all splits together.
        seed: decides topics and seeds of worlds.
        on_world: told after each world.

    Raises:
        ConfigError: the directory is another set's, or the endpoint accepts nothing.
        RolloutError: the endpoint or the sandbox failed; what is finished is kept.
    """
    wanted = recipe.rows_by_split(rows)
    made_with = {**recipe.model_dump(mode="json"), "model": endpoint.model, "second_model": second.model}

    def write(made: Callable[[str, int], Iterator[Made]]) -> Manifest:
        return write_set(directory, made, kind=KIND, recipe=made_with, seed=seed, splits=wanted)

    write(_nothing)  # says what is wrong with the directory before anything is spent
    async with AsyncExitStack() as stack:
        journal = Journal(directory / SIDECAR / "verdicts.jsonl")
        stack.callback(journal.close)
        replies = Replies(directory / SIDECAR / "replies.jsonl")
        stack.callback(replies.close)
        budget = Budget(cost.max_tokens, cost.max_requests)
        budget.spent_before(replies.tokens, 0)
        client = ChatClient(endpoint, replies, budget)
        stack.push_async_callback(client.close)
        other = ChatClient(second, replies, budget)
        stack.push_async_callback(other.close)
        sandbox = LocalSandbox()
        stack.push_async_callback(sandbox.close)
        bench = Bench(sandbox, at_once=cost.sessions)
        workshop = Workshop(
            Author(client, bench, recipe.author, recipe.certificates),
            bench,
            Solvers(client, other, sandbox, recipe.solvers),
            recipe,
            seed,
        )
        pipeline = Pipeline(workshop, journal, at_once=cost.worlds_at_once, on_world=on_world)
        try:
            ended = await pipeline.run(wanted, cost.max_worlds or 4 * rows + 16, cost.most_barren)
        finally:
            manifest = write(journal.made)
        return Outcome(manifest, ended, len(journal), budget.tokens, budget.requests)


def _nothing(split: str, start: int) -> Iterator[Made]:
    return iter(())
