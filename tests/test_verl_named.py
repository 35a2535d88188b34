"""Servers that are looked up by name: one that is replaced is found, and a session stays where it was opened."""

from collections.abc import Iterator, Sequence

import pytest

import sandbox_server
from recall.errors import RetrieverError, SandboxError
from recall.trainers.verl.named import NamedRetriever, NamedSandbox

DOUBLE = "def double(number):\n    return 2 * number\n"


def ended(server: sandbox_server.Server) -> None:
    server.process.kill()
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()


@pytest.fixture
def servers() -> Iterator[list[sandbox_server.Server]]:
    """Two sandbox servers; tests may end them."""
    started = [sandbox_server.start() for _ in range(2)]
    try:
        yield started
    finally:
        for server in started:
            if server.process.poll() is None:
                ended(server)


async def nothing() -> Sequence[str]:
    return []


async def test_a_server_that_is_replaced_under_its_name_is_found(servers: list[sandbox_server.Server]) -> None:
    there = [servers[0].url]

    async def look() -> Sequence[str]:
        return list(there)

    sandbox = NamedSandbox(look, wait_s=1.0)
    try:
        session = await sandbox.open(DOUBLE)
        assert (await session.call("double", {"number": 21})).result == 42
        there[:] = [servers[1].url]
        assert (await session.call("double", {"number": 4})).result == 8  # where it was opened
        ended(servers[0])
        with pytest.raises(SandboxError):
            await session.call("double", {"number": 1})
        again = await sandbox.open(DOUBLE)
        assert (await again.call("double", {"number": 5})).result == 10
        await again.close()
    finally:
        await sandbox.close()


async def test_without_a_server_it_is_our_failure() -> None:
    sandbox, retriever = NamedSandbox(nothing), NamedRetriever(nothing)
    with pytest.raises(SandboxError, match="no sandbox server is there"):
        await sandbox.open(DOUBLE)
    with pytest.raises(RetrieverError, match="no retriever is there"):
        await retriever.search(["x"], 1)
    await sandbox.close()
    await retriever.close()
