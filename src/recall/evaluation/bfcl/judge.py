"""What the official checkers say of what was played, by the rules of `bfcl evaluate` for each sort of entry.

Source: `eval_checker/eval_runner.py` of bfcl-eval 2026.3.23; `official.py` holds the two against each other.
"""

from typing import Any

from recall.evaluation.bfcl.checkers import Checkers, CheckersError
from recall.evaluation.bfcl.entries import Entry
from recall.evaluation.bfcl.environment import Played

RIGHT: dict[str, Any] = {"valid": True}


async def judge(entry: Entry, played: Played, checkers: Checkers) -> dict[str, Any]:
    """Whether an entry is right (`valid`), the leaderboard's word for what is wrong, and a message.

    A conversation that fills a memory is right when it went to its end.
    """
    if entry.conversation:
        return RIGHT if played.finished else _wrong("memory:cut_short", "the conversation was cut short by a limit")
    try:
        if entry.sort == "multi_turn":
            return await _turns(entry, played, checkers)
        if entry.sort == "memory":
            return await _answer(entry, played, checkers)
        if entry.sort == "relevance":
            return _relevance(entry, played)
        if isinstance(played.first, str):
            return _wrong("ast_decoder:decoder_failed", "no call")
        return await checkers.check_calls(
            entry.source["function"], entry.truth, entry.category, played.first, entry.language
        )
    except CheckersError as fault:
        # Values that the checkers do not expect make them raise; `bfcl evaluate` would end with a traceback.
        return _wrong("checkers:failed", str(fault))


async def _turns(entry: Entry, played: Played, checkers: Checkers) -> dict[str, Any]:
    if len(played.turns) != len(entry.truth):
        told = f"the dialogue ended in turn {len(played.turns)} of {len(entry.truth)}"
        return _wrong("multi_turn:force_terminated", told)
    return await checkers.check_turns(entry.source, entry.truth, entry.category, played.code())


async def _answer(entry: Entry, played: Played, checkers: Checkers) -> dict[str, Any]:
    if len(played.turns) != 1:
        return _wrong("agentic:inference_error", "there is no answer")
    if not played.last_words:
        return _wrong("agentic:no_last_message", "there is no last message that is not a call")
    return await checkers.check_answer(entry.truth, played.last_words)


def _relevance(entry: Entry, played: Played) -> dict[str, Any]:
    called, wanted = not isinstance(played.first, str), entry.category == "live_relevance"
    if called is wanted:
        return RIGHT
    if wanted:
        return _wrong("relevance_error:decoder_failed", "no call, where there should be one")
    return _wrong("irrelevance_error:decoder_success", "a call, where there should be none")


def _wrong(kind: str, message: str) -> dict[str, Any]:
    return {"valid": False, "error_type": kind, "message": message}
