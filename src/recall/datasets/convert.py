"""Questions into task rows with the search tool, and the address of a retriever into rows that wait for one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from recall.datasets.qa import Question
from recall.errors import ConfigError
from recall.tools.search import SEARCH_URL, SearchForm, search_source, search_tool
from recall.types import Task, ToolSpec


def search_tasks(
    questions: Iterable[Question], *, data_source: str, split: str = "", url: str = SEARCH_URL, top_k: int = 5
) -> Iterator[Task]:
    """Each question as a task with the search tool and nothing else; a question may say what the tool is called.

    Args:
        questions: of a benchmark.
        data_source: what the rows are said to come from, such as `musique`.
        split: such as `train`.
        url: of the retriever service; the placeholder leaves it to be filled in later, by `with_search_url`.
        top_k: passages where a call names no number.
    """
    made: dict[
        SearchForm, tuple[str, tuple[ToolSpec, ...]]
    ] = {}  # renderers remember a tuple of tools that comes again
    for question in questions:
        form = SearchForm.of(question.metadata)
        if form not in made:
            made[form] = search_source(url, top_k, form), (search_tool(top_k, form),)
        source, tools = made[form]
        yield Task(
            id=question.id,
            question=question.question,
            ground_truth=question.answers,
            env=source,
            tools=tools,
            data_source=data_source,
            split=split,
            kind=question.kind,
            depth=len(question.hops),
        )


def with_search_url(task: Task, url: str) -> Task:
    """The task with the address of a retriever service wherever its source holds the placeholder.

    It goes by the source and not by `data_source`, so rows of any origin are served. A task without the placeholder is
    returned as it is.
    """
    if SEARCH_URL not in task.env:
        return task
    return replace(task, env=task.env.replace(SEARCH_URL, url.rstrip("/")))


def waits_for_url(task: Task) -> bool:
    """Whether the task cannot search yet: its source still holds the placeholder."""
    return SEARCH_URL in task.env


def checked_url(url: str) -> str:
    """The address of a retriever service, without a slash at its end.

    Raises:
        ConfigError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or '"' in url:
        raise ConfigError(f"search url {url!r}: accepted: http://host:port, with a path where the service has one")
    return url.rstrip("/")
