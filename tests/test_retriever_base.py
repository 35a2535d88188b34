import pytest

from recall.errors import RetrieverBusy, RetrieverError, RolloutError
from recall.retriever.base import Passage, Retriever
from recall.retriever.fixed import FixedRetriever

ADA = Passage("p1", '"Ada Lovelace"\nShe wrote a program.\nIt was the first.', 2.0)
BOB = Passage("p2", '"Bob"\nHe did not.', 1.0)


def test_title_and_text_are_what_flashrag_puts_into_contents() -> None:
    assert (ADA.title, ADA.text) == ("Ada Lovelace", "She wrote a program.\nIt was the first.")


def test_only_the_quotes_around_the_title_are_dropped() -> None:
    assert Passage("a", '"The "Best" Of"\nx').title == 'The "Best" Of'
    assert Passage("a", "bare title\nx").title == "bare title"
    assert (Passage("a", '"').title, Passage("a", "").title, Passage("a", "one line").text) == ('"', "", "")


async def test_the_fixed_retriever_answers_from_its_mapping() -> None:
    fixed = FixedRetriever({"who?": [ADA, BOB]}, otherwise=[BOB])
    retriever: Retriever = fixed
    assert await retriever.search(["who?", "what?", " "], 5) == [[ADA, BOB], [BOB], []]
    assert await retriever.search(["who?"], 1) == [[ADA]]
    assert fixed.asked == ["who?", "what?", " ", "who?"]
    await retriever.close()
    assert fixed.closed


async def test_no_passages_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        await FixedRetriever({}).search(["a"], 0)


def test_the_card_tells_other_passages_apart() -> None:
    assert FixedRetriever({"a": [ADA]}).card == FixedRetriever({"b": [ADA]}).card
    assert FixedRetriever({"a": [ADA]}).card.id != FixedRetriever({"a": [BOB]}).card.id
    assert FixedRetriever({"a": [ADA]}, otherwise=[BOB]).card.passages == 2


def test_a_failed_retriever_is_ours_to_blame() -> None:
    assert issubclass(RetrieverError, RolloutError)
    assert RetrieverBusy("full", 2.5).retry_after_s == 2.5
