"""The search tool, `wikipedia_search`, in the two ways that it can run: as source in a sandbox, and natively.

As source it is the `env` of a task row, in the published format: a few lines that post to a retriever service, whose
address stands in the place of `SEARCH_URL`. Natively, `NativeSearch` answers the same calls from a retriever in this
process. The policy reads the same texts either way; the tests hold the two against each other.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from recall.errors import ConfigError, RetrieverBusy
from recall.retriever.base import Retriever
from recall.sandbox.base import DEFAULT_OPTIONS, CallResult, Sandbox, Session, SessionOptions
from recall.tool_calls import SEARCH
from recall.types import CallStatus, ToolSpec

SEARCH_URL = "<search-url-placeholder>"
"""What stands in a row for the address of the retriever service, such as `http://127.0.0.1:8080`."""

_EMPTY = "The query is empty."
_TOO_FEW = "top_n must be at least 1."
_SIGNATURE = re.compile(r"^def (\w+)\((\w+): str, top_n: int = (\d+)\):$", re.MULTILINE)
"""The first line of the tool in a source: its name, its parameter, its passages."""
_SOURCE = """import requests


def {name}({query}: str, top_n: int = {top_k}):
    if not {query}.strip():
        return {empty!r}
    if top_n < 1:
        return {too_few!r}
    answer = requests.post("{url}/search", json={{"query": {query}, "top_n": top_n}})
    if answer.status_code != 200:
        raise RuntimeError(f"the search service answered with status {{answer.status_code}}")
    return "\\n\\n".join(passage["contents"] for passage in answer.json())
"""


@dataclass(frozen=True, slots=True)
class SearchForm:
    """What the policy is told of the search tool. The default is that of the published rows."""

    name: str = SEARCH
    """What it is called by."""
    description: str = "Search Wikipedia and return the passages that fit best."
    """What it does."""
    query: str = "query"
    """The parameter that says what to look for."""
    bare: bool = False
    """The schema shows this parameter alone, without a description."""

    def as_json(self) -> dict[str, Any]:
        """The form as a question's `metadata` keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "SearchForm":
        """The form that a question asks for under `search_tool`, or the published one.

        Raises:
            ConfigError: what stands there is no form.
        """
        given = metadata.get("search_tool", {})
        try:
            form = cls(**given)
        except TypeError:
            raise ConfigError(
                f"search_tool: accepted: an object of name, description, query, bare; not {given!r}"
            ) from None
        texts = (form.name, form.description, form.query)
        if not all(isinstance(text, str) for text in texts) or not (
            form.name.isidentifier() and form.query.isidentifier()
        ):
            raise ConfigError(f"search_tool: name and query have to be identifiers, in {given!r}")
        return form


PUBLISHED = SearchForm()


def search_source(url: str = SEARCH_URL, top_k: int = 5, form: SearchForm = PUBLISHED) -> str:
    """The tool as the `env` of a row.

    Args:
        url: of the retriever service, without the path; the placeholder where it is filled in later.
        top_k: passages where a call names no number.
        form: what it and its parameter are called.
    """
    return _SOURCE.format(
        name=form.name, query=form.query, top_k=top_k, empty=_EMPTY, too_few=_TOO_FEW, url=url.rstrip("/")
    )


def search_tool(top_k: int = 5, form: SearchForm = PUBLISHED) -> ToolSpec:
    """What the policy is told of the tool; by default names and types are those of the published rows."""
    properties: dict[str, Any] = {form.query: {"type": "string"}}
    if not form.bare:
        properties[form.query]["description"] = "What to look for."
        properties["top_n"] = {"type": "integer", "description": "How many passages to return.", "default": top_k}
    parameters = {"type": "object", "properties": properties, "required": [form.query]}
    return ToolSpec(form.name, form.description, parameters)


class NativeSearch:
    """A `Sandbox` in which calls of the search tool go to a retriever of this process and not to the source.

    The search tool is `wikipedia_search`, and whatever a source of `search_source` calls it. Calls of other tools go to
    the sandbox beside it, whose session is opened when the first one comes. So tasks keep their rows, and an evaluation
    or a training run chooses here how their searches are done. A failure of the retriever raises `RetrieverError`: it
    is ours, not the policy's.
    """

    def __init__(
        self,
        retriever: Retriever,
        beside: Sandbox | None = None,
        *,
        top_k: int | None = None,
        patience_s: float = 60.0,
        owned: bool = False,
    ) -> None:
        """Take the retriever.

        Args:
            retriever: answers the searches.
            beside: runs all other tools; without it, a task that has any meets `unknown_tool`.
            top_k: passages where a call names no number; None takes what the source says, or else 5.
            patience_s: seconds for which a search that finds no room is tried again.
            owned: whether the retriever is closed with the sandbox, or stays the caller's to close.
        """
        self.retriever, self.beside, self.top_k, self.patience_s = retriever, beside, top_k, patience_s
        self._owned = owned

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> "NativeSession":
        """A session; nothing is started for it until a tool other than the search is called."""
        return NativeSession(self, source, options)

    async def close(self) -> None:
        """Close the sandbox beside it, and the retriever where it is owned."""
        if self.beside is not None:
            await self.beside.close()
        if self._owned:
            await self.retriever.close()

    async def search(self, query: str, top_n: int) -> str:
        """What the policy is shown: the contents of the passages, a blank line between two.

        Raises:
            RetrieverError: the retriever failed, or had no room for `patience_s`.
        """
        if not query.strip():
            return _EMPTY
        if top_n < 1:
            return _TOO_FEW
        deadline = perf_counter() + self.patience_s
        while True:
            try:
                (passages,) = await self.retriever.search([query], top_n)
            except RetrieverBusy as busy:
                if perf_counter() + busy.retry_after_s > deadline:
                    raise
                await asyncio.sleep(busy.retry_after_s)
            else:
                return "\n\n".join(passage.contents for passage in passages)


class NativeSession:
    """A session of `NativeSearch`. Searches of one turn run at the same time: they share no state."""

    def __init__(self, search: NativeSearch, source: str, options: SessionOptions) -> None:
        self._search, self._source, self._options = search, source, options
        self._names, default = {SEARCH: "query"}, 5
        if (header := _SIGNATURE.search(source)) is not None and "/search" in source:
            self._names[header[1]], default = header[2], int(header[3])
        self._top_k = default if search.top_k is None else search.top_k
        self._beside: Session | None = None
        self._opening = asyncio.Lock()

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float | None = None) -> CallResult:
        """Call a tool. See `recall.sandbox.base.Session.call`; a search has no time-out but the retriever's own."""
        if name not in self._names:
            return await self._call_beside(name, arguments, timeout_s)
        started = perf_counter()
        text = await self._search.search(arguments[self._names[name]], arguments.get("top_n", self._top_k))
        return CallResult(CallStatus.OK, text, duration_s=perf_counter() - started)

    async def close(self) -> None:
        """End the session beside it, if there is one."""
        beside, self._beside = self._beside, None
        if beside is not None:
            await beside.close()

    async def _call_beside(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None) -> CallResult:
        if self._search.beside is None:
            return CallResult(CallStatus.UNKNOWN_TOOL, error=f"there is no tool {name!r}")
        async with self._opening:
            if self._beside is None:
                self._beside = await self._search.beside.open(self._source, self._options)
        return await self._beside.call(name, arguments, timeout_s=timeout_s)


class AddressedSearch:
    """A `Sandbox` that puts the address of a retriever service into sources that wait for one.

    It goes by the placeholder in the source, so tasks of any data source are served.
    """

    def __init__(self, sandbox: Sandbox, url: str = "") -> None:
        """Take the sandbox, which is closed with this one, and the address; without one, such sources are refused."""
        self.sandbox, self.url = sandbox, url.rstrip("/")

    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        """Open a session of the sandbox on the source with the address in it.

        Raises:
            ConfigError: the source waits for an address, and there is none.
        """
        if SEARCH_URL in source:
            if not self.url:
                raise ConfigError(
                    "a task searches, and where is not said: give --sandbox.search (an index directory, or the address "
                    "of a service) or --sandbox.search_url (an address that its source in the sandbox posts to)"
                )
            source = source.replace(SEARCH_URL, self.url)
        return await self.sandbox.open(source, options)

    async def close(self) -> None:
        """Close the sandbox."""
        await self.sandbox.close()
