"""A retriever as a tool: `wikipedia_search`, in this process or over the retriever's own client."""

from recall.retriever.base import Retriever
from recall.tools.base import Marks, Tool, Toolbox
from recall.tools.search import NativeSearch, search_tool


class RetrieverTools:
    """The search tool on a retriever; implements `recall.tools.base.ToolSource`.

    The name, the arguments and the texts are those that models are trained with (`recall.tools.search`).
    """

    def __init__(self, retriever: Retriever, *, top_k: int = 5, owned: bool = False) -> None:
        """Take the retriever.

        Args:
            retriever: answers the searches.
            top_k: passages where a call names no number.
            owned: whether the retriever is closed with the source, or stays the caller's to close.
        """
        self._search = NativeSearch(retriever, top_k=top_k, owned=owned)
        self.tools = (Tool(search_tool(top_k), Marks(idempotent=True)),)
        """What is offered."""

    async def open(self) -> Toolbox:
        """A session; searches share nothing, so it costs nothing."""
        return Toolbox(self.tools, await self._search.open(""))

    async def close(self) -> None:
        """Close the retriever where it is owned."""
        await self._search.close()
