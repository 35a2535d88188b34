import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from fakes import chatml_tokenizer
from recall.datasets.qa import Hop, Question
from recall.environment import Limits, ToolEnvironments
from recall.errors import ConfigError, PolicyError, RetrieverError
from recall.evaluation.qa import baselines, prompts
from recall.evaluation.qa.baselines import Bench, answer_in, first_sentence, visible
from recall.evaluation.qa.methods import Agent, Ask, Outcome
from recall.evaluation.qa.oracle import check_hops, oracle, queries
from recall.policy.scripted import ScriptedPolicy
from recall.renderer import PLACEHOLDER, ChatMLRenderer, Renderer, ResearchRenderer
from recall.retriever.base import Passage
from recall.retriever.fixed import FixedRetriever
from recall.tool_calls import SEARCH, format_call, format_calls, format_search
from recall.tools.search import NativeSearch
from recall.types import Completion, Message, Sampling, ToolCall

TOKENIZER = chatml_tokenizer()
RENDERER = ChatMLRenderer(TOKENIZER)
ADA, BOB, EVE = (Passage(name, f'"{name}"\n{name} is {age}.') for name, age in (("Ada", 36), ("Bob", 40), ("Eve", 9)))
RETRIEVER_ANSWERS = {"How old is Ada?": [BOB, ADA], "Bob knows Ada.": [EVE, BOB], "Eve is 9.": [ADA]}
QUESTION = Question("q", "How old is Ada?", ("36",))
ASK = Ask(QUESTION, "run/0", seed=7)
LIMITS = Limits(max_tokens=4000, max_turn_tokens=500)


class Writer:
    """A policy that writes one turn for each prompt it reads, and remembers the prompts."""

    def __init__(self, *turns: str | PolicyError) -> None:
        self.turns = list(turns)
        self.read: list[str] = []
        self.seeds: list[int | None] = []
        self.open: set[str] = set()

    def begin(self, episode_id: str) -> None:
        assert episode_id not in self.open
        self.open.add(episode_id)

    async def sample(self, prompt_ids: Sequence[int], sampling: Sampling, *, episode_id: str) -> Completion:
        self.read.append(RENDERER.decode(prompt_ids))
        self.seeds.append(sampling.seed)
        turn = self.turns.pop(0)
        if isinstance(turn, PolicyError):
            raise turn
        ids = RENDERER.turn(turn)[: sampling.max_tokens]
        return Completion(tuple(ids), (0.0,) * len(ids), "stop" if ids[-1] == RENDERER.turn("")[-1] else "length")

    def end(self, episode_id: str) -> None:
        self.open.remove(episode_id)


def instructed(instruction: str) -> Renderer:
    return ChatMLRenderer(TOKENIZER, template=instruction + PLACEHOLDER)


async def solve(
    method: type[baselines.Baseline], *turns: str | PolicyError, limits: Limits = LIMITS, retriever: Any = None
) -> tuple[Outcome, Writer, FixedRetriever]:
    writer, searched = Writer(*turns), FixedRetriever(RETRIEVER_ANSWERS, [ADA])
    bench = Bench(writer, instructed, limits, Sampling(temperature=0.0, max_tokens=500), retriever or searched, 2)
    outcome = await method(bench).answer(ASK)
    assert writer.open == set()
    return outcome, writer, searched


def asked(question: str, instruction: str) -> str:
    """The whole prompt of a turn without tools."""
    return (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_naive_asks_for_the_bare_answer_from_memory() -> None:
    outcome, writer, searched = await solve(baselines.Naive, "\\boxed{36}")
    assert (outcome.prediction, outcome.closed, outcome.turns, outcome.queries) == ("36", True, 1, ())
    assert writer.read == [asked("Question: How old is Ada?", prompts.ANSWER)]
    assert searched.asked == []


async def test_zero_shot_thinks_first() -> None:
    outcome, writer, _ = await solve(baselines.ZeroShot, "Ada was born in 1815. So the answer is 36.")
    assert outcome.prediction == "36"
    assert writer.read == [asked("Question: How old is Ada?", prompts.REASON)]


async def test_rag_searches_for_the_question_and_reads_what_it_finds() -> None:
    outcome, writer, searched = await solve(baselines.OneSearch, "36")
    assert (outcome.prediction, outcome.queries) == ("36", ("How old is Ada?",))
    assert searched.asked == ["How old is Ada?"]
    text = f"Passages:\n\n{BOB.contents}\n\n{ADA.contents}\n\nQuestion: How old is Ada?"
    assert writer.read == [asked(text, prompts.READ)]


async def test_iter_retgen_searches_for_what_it_wrote_with_the_question() -> None:
    outcome, writer, searched = await solve(baselines.IterRetGen, "Bob is 40.", "Eve?", "\\boxed{36}")
    expected = ["How old is Ada?", "Bob is 40. How old is Ada?", "Eve? How old is Ada?"]
    assert searched.asked == list(outcome.queries) == expected
    assert (outcome.prediction, outcome.turns) == ("36", 3)
    assert len(set(writer.seeds)) == 3


async def test_ircot_searches_for_each_thought_and_keeps_what_it_found() -> None:
    outcome, writer, searched = await solve(
        baselines.IRCoT, "Bob knows Ada. More.", "Eve is 9.", "So the answer is \\boxed{36}."
    )
    assert searched.asked == list(outcome.queries) == ["How old is Ada?", "Bob knows Ada.", "Eve is 9."]
    assert outcome.prediction == "36"
    passages = [text.partition("Passages:\n\n")[2].partition("\n\nQuestion:")[0] for text in writer.read]
    assert passages[0] == f"{BOB.contents}\n\n{ADA.contents}"
    assert passages[1] == passages[2] == f"{BOB.contents}\n\n{ADA.contents}\n\n{EVE.contents}"
    assert "Thoughts so far: Bob knows Ada. Eve is 9." in writer.read[2]


async def test_ircot_reads_everything_once_more_where_no_thought_gives_the_answer() -> None:
    outcome, writer, _ = await solve(baselines.IRCoT, "Bob knows Ada.", "Bob knows Ada.", "\\boxed{36}")
    assert (outcome.prediction, outcome.turns) == ("36", 3)  # a thought that comes again leads nowhere
    assert prompts.READ in writer.read[2]
    outcome, writer, searched = await solve(baselines.IRCoT, *[f"Thought {n}." for n in range(5)], "36")
    assert (outcome.prediction, outcome.turns, len(searched.asked)) == ("36", 6, 6)


async def test_passages_that_leave_no_room_for_a_turn_are_left_out_from_the_end() -> None:
    messages = [Message("user", prompts.with_passages(QUESTION.question, BOB.contents))]
    room = len(instructed(prompts.READ).prompt(messages, ()))
    limits = Limits(max_tokens=room + 60, max_turn_tokens=60)
    for settings, shown in ((LIMITS, (True, True)), (limits, (True, False))):
        _, writer, _ = await solve(baselines.OneSearch, "36", limits=settings)
        assert tuple(passage.contents in writer.read[0] for passage in (BOB, ADA)) == shown
    _, writer, _ = await solve(baselines.OneSearch, "36", limits=Limits(max_tokens=room + 59, max_turn_tokens=60))
    assert "Passages" not in writer.read[0]


async def test_a_turn_that_runs_out_of_room_counts_as_truncated() -> None:
    limits = Limits(max_tokens=4000, max_turn_tokens=5)
    outcome, _, _ = await solve(baselines.Naive, "the answer could be many things", limits=limits)
    assert (outcome.truncated, outcome.closed, outcome.stop) == (True, False, "max_tokens")
    assert outcome.sampled_tokens == 5


class Broken(FixedRetriever):
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise RetrieverError("the index is gone")


async def test_what_of_ours_fails_is_a_fault_and_no_answer() -> None:
    outcome, _, _ = await solve(baselines.OneSearch, retriever=Broken({}))
    assert (outcome.fault, outcome.prediction) == ("RetrieverError: the index is gone", None)
    outcome, writer, _ = await solve(baselines.IterRetGen, "Bob is 40.", PolicyError("no room"))
    assert (outcome.fault, outcome.prediction, outcome.closed) == ("PolicyError: no room", None, False)
    assert len(writer.read) == 2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{a} then \\boxed{b}", "b"),
        ("So the answer is Paris.", "Paris"),
        ("So the ANSWER IS: yes", "yes"),
        ("Paris", "Paris"),
        ("  ", None),
        ("\\boxed{}", None),
    ],
)
def test_the_answer_is_what_a_text_marks_as_such(text: str, answer: str | None) -> None:
    assert answer_in(text) == answer


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One thing. Another.", "One thing."),
        ("J.R.R. Tolkien wrote it. Yes.", "J.R.R. Tolkien wrote it."),
        ("Mr. Smith and Dr. Who met. Yes.", "Mr. Smith and Dr. Who met."),
        ("Did he? No.", "Did he?"),
        ("It cost 3.5 million. Then", "It cost 3.5 million."),
        ("First line\nsecond", "First line"),
        ('He said "no." Then he left.', 'He said "no."'),
        ("So the answer is \\boxed{4}.", "So the answer is \\boxed{4}."),
        ("", ""),
    ],
)
def test_the_first_sentence_is_found_by_stops_and_capitals(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_thinking_is_no_part_of_what_is_said() -> None:
    assert visible("<think> a </think> b") == "b"
    assert visible("a </think> b </think> c") == "c"
    assert visible("before <think> never ends \\boxed{3}") == "before"
    assert visible("plain") == "plain"


def agent(policy: Any, renderer: Any, retriever: FixedRetriever, limits: Limits = LIMITS) -> Agent:
    environments = ToolEnvironments(NativeSearch(retriever), limits)
    return Agent(policy, renderer, environments, limits, Sampling(temperature=0.0, max_tokens=500))


async def test_an_agent_searches_with_the_tool_and_answers_in_a_box() -> None:
    retriever = FixedRetriever({"Ada": [ADA]})
    calls = [ToolCall(SEARCH, {"query": "Ada"}), ToolCall(SEARCH, {"query": 3}), ToolCall("other", {})]
    outcome = await agent(ScriptedPolicy([format_calls(calls), "\\boxed{36}"], RENDERER), RENDERER, retriever).answer(
        ASK
    )
    assert (outcome.prediction, outcome.closed, outcome.turns, outcome.queries) == ("36", True, 2, ("Ada",))
    assert outcome.texts == (f"{format_calls(calls)}<|im_end|>", "\\boxed{36}<|im_end|>")
    assert outcome.sampled_tokens == sum(len(RENDERER.turn(text)) for text in (format_calls(calls), "\\boxed{36}"))
    assert outcome.read_tokens > outcome.sampled_tokens


async def test_a_research_agent_speaks_its_own_dialect() -> None:
    renderer = ResearchRenderer(TOKENIZER)
    turns = [f"<think> x </think> {format_search('Ada')}", " <think> y </think> \\boxed{36}"]
    outcome = await agent(ScriptedPolicy(turns, renderer), renderer, FixedRetriever({"Ada": [ADA]})).answer(ASK)
    assert (outcome.prediction, outcome.queries, outcome.closed) == ("36", ("Ada",), True)


async def test_an_agent_that_never_answers_is_not_closed() -> None:
    search = format_call(ToolCall(SEARCH, {"query": "Ada"}))
    limits = Limits(max_turns=3)
    outcome = await agent(ScriptedPolicy([search] * 3, RENDERER), RENDERER, FixedRetriever({}), limits).answer(ASK)
    assert (outcome.prediction, outcome.closed, outcome.truncated, outcome.stop) == (None, False, True, "max_turns")
    outcome = await agent(ScriptedPolicy(["I do not know."], RENDERER), RENDERER, FixedRetriever({})).answer(ASK)
    assert (outcome.prediction, outcome.closed, outcome.truncated, outcome.stop) == (None, False, False, "done")


CHAIN = Question(
    "c",
    "How old is the friend of Bob?",
    ("36",),
    {
        "question_decomposition": [
            {"question": "Bob >> friend", "answer": "Ada", "paragraph_support_idx": 1},
            {"question": "#1 >> age", "answer": "36", "paragraph_support_idx": 0},
        ]
    },
)


def chain(*texts: str) -> Question:
    from recall.datasets.qa import Paragraph

    return dataclasses.replace(CHAIN, paragraphs=tuple(Paragraph("t", text) for text in texts))


SHOWN = {"Bob friend": [Passage("1", '"Bob"\nBob\'s friend is Ada.')], "Ada": [Passage("2", '"Ada"\nAda is 36 .')]}


@pytest.mark.parametrize(
    ("evidence", "paragraphs", "prediction"),
    [
        ("paragraph", ("Ada is 36 .", "Bob's friend is Ada."), "36"),
        ("paragraph", ("Ada is 36 years.", "Bob's friend is Ada."), "unknown"),
        ("answer", (), "36"),
    ],
)
async def test_an_oracle_answers_exactly_when_every_hops_evidence_was_shown(
    evidence: Any, paragraphs: Sequence[str], prediction: str
) -> None:
    question = chain(*paragraphs)
    check_hops(question, evidence)
    retriever = FixedRetriever(SHOWN)
    outcome = await agent(oracle(evidence, RENDERER), RENDERER, retriever).answer(Ask(question, "o"))
    assert outcome.prediction == prediction
    assert outcome.queries[:2] == ("Bob friend", "Ada age")
    assert outcome.closed


async def test_an_oracle_that_is_shown_nothing_gives_up_after_the_first_hop() -> None:
    outcome = await agent(oracle("answer", RENDERER), RENDERER, FixedRetriever({})).answer(Ask(chain(), "o"))
    assert (outcome.prediction, outcome.queries) == ("unknown", ("Bob friend", "Bob"))


def test_an_oracle_refuses_a_question_that_it_cannot_play() -> None:
    with pytest.raises(ConfigError, match=r"question 'q': no question_decomposition"):
        check_hops(QUESTION, "answer")
    with pytest.raises(ConfigError, match="rests on no paragraph of the row; use oracle-answer"):
        check_hops(chain("only one"), "paragraph")


def test_the_queries_of_a_hop_are_its_question_then_its_subject_then_the_answers_before() -> None:
    assert list(queries(Hop("#1 >> capital", "x"), ["Peru"])) == ["Peru capital", "Peru", "Peru"]
    assert list(queries(Hop("When did #2 meet #1?", "x"), ["Ada", "Bob"])) == ["When did Bob meet Ada?", "Bob", "Ada"]
    assert next(queries(Hop("Who is #9?", "x"), ["Ada"])) == "Who is ?"
