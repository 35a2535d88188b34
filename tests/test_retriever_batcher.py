"""Queries of many requests as batches: nobody's answer is another's, nothing is searched twice, nothing is lost."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from recall.errors import RetrieverBusy, RetrieverError
from recall.retriever.base import Card, Passage
from recall.retriever.service.batcher import Batcher, BatchLimits
from recall.retriever.service.hits import Cache, Hits, encode

MANY = 1 << 20


class Slow:
    """Finds the query itself, after a while; knows what it was asked, and how."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.batches: list[tuple[list[str], int]] = []
        self.fails = 0
        """How many of the next searches fail."""

    @property
    def card(self) -> Card:
        return Card("slow", "fixed", 1000)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.batches.append((list(queries), k))
        await asyncio.sleep(self.seconds)
        if self.fails:
            self.fails -= 1
            raise RetrieverError("it failed")
        return [answer(query, k) for query in queries]

    async def close(self) -> None:
        return


def answer(query: str, k: int) -> list[Passage]:
    return [Passage(f"{query}-{place}", f'"{query}"\n{place}', float(k - place)) for place in range(k)]


def made(retriever: Slow, *, cache: int = MANY, **limits: float) -> Batcher:
    return Batcher(retriever, Cache(cache), BatchLimits(**limits))  # type: ignore[arg-type]


def expected(queries: Sequence[str], k: int) -> list[Hits]:
    return [encode(answer(query, k) if query.strip() else []) for query in queries]


async def test_a_query_that_comes_alone_does_not_wait() -> None:
    retriever = Slow(0)
    batcher = made(retriever, window_s=5.0)
    async with asyncio.timeout(2):
        for number in range(20):
            assert await batcher.search([str(number)], 3) == expected([str(number)], 3)
    assert [len(queries) for queries, _ in retriever.batches] == [1] * 20


async def test_queries_of_one_moment_are_one_batch() -> None:
    retriever = Slow()
    batcher = made(retriever)
    found = await asyncio.gather(*[batcher.search([str(number)], 2) for number in range(50)])
    assert found == [expected([str(number)], 2) for number in range(50)]
    assert [len(queries) for queries, _ in retriever.batches] == [50]


async def test_queries_gather_while_others_are_searched() -> None:
    retriever = Slow(0.05)
    batcher = made(retriever)
    first = asyncio.create_task(batcher.search(["first"], 1))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(batcher.search([str(number)], 1)) for number in range(30)]
    await asyncio.gather(first, *others)
    assert [len(queries) for queries, _ in retriever.batches] == [1, 30]


async def test_the_clients_that_a_search_answered_are_waited_for_but_no_longer_than_the_window() -> None:
    retriever = Slow(0.02)
    batcher = made(retriever, window_s=0.5)

    async def client(name: str, rounds: int) -> None:
        for turn in range(rounds):
            await batcher.search([f"{name} {turn}"], 1)
            await asyncio.sleep(random.random() * 0.01)

    await asyncio.gather(*[client(str(number), 5) for number in range(20)])
    assert [len(queries) for queries, _ in retriever.batches] == [20] * 5
    async with asyncio.timeout(2):
        await batcher.search(["a straggler"], 1)


async def test_a_batch_is_no_larger_than_allowed_and_of_one_k() -> None:
    retriever = Slow(0.001)
    batcher = made(retriever, batch=8)
    asked = [([f"{number} {k}" for number in range(21)], k) for k in (1, 3, 2)]
    found = await asyncio.gather(*[batcher.search(queries, k) for queries, k in asked])
    assert found == [expected(queries, k) for queries, k in asked]
    for queries, k in retriever.batches:
        assert len(queries) <= 8
        assert all(query.endswith(f" {k}") for query in queries)


async def test_a_query_is_searched_once_however_many_want_it() -> None:
    retriever = Slow()
    batcher = made(retriever)
    wanted = ["a", "b", "a", "a"]
    found = await asyncio.gather(*[batcher.search(wanted, 2) for _ in range(20)])
    later = await batcher.search(wanted, 2)
    assert found == [expected(wanted, 2)] * 20
    assert later == expected(wanted, 2)
    assert retriever.batches == [(["a", "b"], 2)]
    counts = batcher.counts
    assert (counts.searched, counts.joined, counts.cached) == (2, 78, 4)


async def test_a_query_that_is_being_searched_is_not_searched_again() -> None:
    retriever = Slow(0.05)
    batcher = made(retriever, cache=0)
    first = asyncio.create_task(batcher.search(["a"], 1))
    await asyncio.sleep(0.01)
    assert await batcher.search(["a"], 1) == await first == expected(["a"], 1)
    assert len(retriever.batches) == 1
    await batcher.search(["a"], 1)
    assert len(retriever.batches) == 2  # nothing is remembered, and nothing is kept of what was in flight


async def test_another_k_is_another_question() -> None:
    batcher = made(Slow())
    assert await batcher.search(["a"], 1) == expected(["a"], 1)
    assert await batcher.search(["a"], 4) == expected(["a"], 4)


async def test_a_blank_query_finds_nothing_and_is_not_searched() -> None:
    retriever = Slow()
    batcher = made(retriever)
    assert await batcher.search(["", " \t\n\u3000", "a"], 1) == expected(["", " ", "a"], 1)
    assert retriever.batches == [(["a"], 1)]
    assert await batcher.search([], 1) == []


async def test_a_large_request_does_not_hold_up_small_ones() -> None:
    retriever = Slow(0.002)
    batcher = made(retriever, batch=16)
    large = asyncio.create_task(batcher.search([f"large {number}" for number in range(2000)], 1))
    await asyncio.sleep(0.01)
    before = len(retriever.batches)
    await batcher.search(["small"], 1)
    assert len(retriever.batches) - before <= 3
    assert not large.done()
    assert await large == expected([f"large {number}" for number in range(2000)], 1)


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    retriever = Slow(0.05)
    batcher = made(retriever, waiting=10, batch=4)
    running = asyncio.create_task(batcher.search([str(number) for number in range(20)], 1))
    await asyncio.sleep(0.01)
    with pytest.raises(RetrieverBusy) as refusal:
        await batcher.search(["one more"], 1)
    assert refusal.value.retry_after_s >= 1
    assert await running == expected([str(number) for number in range(20)], 1)
    assert batcher.waiting == 0
    assert await batcher.search(["one more"], 1) == expected(["one more"], 1)
    assert batcher.counts.refused == 1


async def test_a_search_that_does_not_begin_in_time_is_given_up() -> None:
    retriever = Slow(0.5)
    batcher = made(retriever, begin_s=0.05)
    running = asyncio.create_task(batcher.search(["a"], 1))
    await asyncio.sleep(0.01)
    with pytest.raises(RetrieverBusy):
        await batcher.search(["b"], 1)
    assert await running == expected(["a"], 1)
    await asyncio.sleep(0.05)
    assert [queries for queries, _ in retriever.batches] == [["a"]]


async def test_a_failed_search_fails_those_who_wanted_it_and_is_not_remembered() -> None:
    retriever = Slow()
    retriever.fails = 1
    batcher = made(retriever)
    found = await asyncio.gather(*[batcher.search([str(number % 2)], 1) for number in range(4)], return_exceptions=True)
    assert [type(each) for each in found] == [RetrieverError] * 4
    assert await batcher.search(["0", "1"], 1) == expected(["0", "1"], 1)
    await asyncio.sleep(0)
    assert (batcher.waiting, batcher.running) == (0, 0)


async def test_a_retriever_that_answers_too_little_is_found_out() -> None:
    class Short(Slow):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            return (await super().search(queries, k))[1:]

    with pytest.raises(RetrieverError, match="0 of 1"):
        await made(Short()).search(["a"], 1)


async def test_who_hangs_up_takes_only_its_own_queries_along() -> None:
    retriever = Slow(0.5)
    batcher = made(retriever, batch=4)
    await asyncio.gather(batcher.search(["warm"], 1))
    running = asyncio.create_task(batcher.search([f"r{number}" for number in range(4)], 1))
    await asyncio.sleep(0.01)
    leaver = asyncio.create_task(batcher.search([f"l{number}" for number in range(40)] + ["shared"], 1))
    await asyncio.sleep(0.01)
    heir = asyncio.create_task(batcher.search(["shared", "own"], 1))
    await asyncio.sleep(0.01)
    leaver.cancel()
    await asyncio.wait([leaver])
    assert batcher.waiting == 2
    assert await heir == expected(["shared", "own"], 1)
    await running
    assert not any(query.startswith("l") for queries, _ in retriever.batches for query in queries)
    assert (batcher.waiting, batcher.running) == (0, 0)


async def test_closing_answers_everybody() -> None:
    batcher = made(Slow(60), batch=2)
    asked = [asyncio.create_task(batcher.search([str(number)], 1)) for number in range(10)]
    await asyncio.sleep(0.01)
    await batcher.close()
    async with asyncio.timeout(5):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in found] == [RetrieverError] * 10


async def test_whatever_happens_every_answer_is_the_right_one() -> None:
    for seed in range(8):
        chance = random.Random(seed)
        retriever = Slow(0.0005)
        batcher = made(
            retriever, cache=chance.choice([0, 3000, MANY]), batch=chance.choice([1, 3, 64]),
            searches=chance.choice([1, 3]), window_s=chance.choice([0.0, 0.002]), waiting=chance.choice([5, 1000]),
        )  # fmt: skip

        async def client(chance: random.Random, retriever: Slow, batcher: Batcher) -> int:
            right = 0
            for _ in range(10):
                queries = [chance.choice(["", "a", "b", str(chance.randrange(50))]) for _ in range(chance.randrange(8))]
                k = chance.randrange(1, 4)
                retriever.fails = int(chance.random() < 0.05)
                work = asyncio.create_task(batcher.search(queries, k))
                if chance.random() < 0.2:
                    await asyncio.sleep(chance.random() * 0.002)
                    work.cancel()
                await asyncio.wait([work])
                if not work.cancelled() and work.exception() is None:
                    assert work.result() == expected(queries, k)
                    right += 1
                await asyncio.sleep(chance.random() * 0.001)
            return right

        clients = [client(random.Random(chance.random()), retriever, batcher) for _ in range(20)]
        async with asyncio.timeout(60):
            assert sum(await asyncio.gather(*clients)) > 0
            await asyncio.gather(*batcher.searches, return_exceptions=True)
        assert batcher.waiting == 0


def test_the_cache_forgets_what_was_asked_longest_ago_and_stays_within_its_bytes() -> None:
    hits = encode(answer("q", 2))
    size = hits.bytes + 1
    cache = Cache(3 * size)
    for name in "abc":
        cache.put((2, name), hits)
    assert cache.get((2, "a")) is hits
    cache.put((2, "d"), hits)
    assert [name for name in "abcd" if cache.get((2, name)) is not None] == ["a", "c", "d"]
    assert (len(cache), cache.bytes, cache.evictions) == (3, 3 * size, 1)
    cache.put((2, "long" * size), hits)
    assert len(cache) == 3
    assert cache.get((3, "a")) is None
