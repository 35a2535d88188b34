"""What the baselines tell a model. The words are ours.

A number belongs to the prompt that it was measured with, so a run's manifest holds the checksum of this file.
"""

ANSWER = (
    "Answer the question. Write nothing but the answer, as short as it can be: a name, a date, a number, yes or no. "
    "Put it in \\boxed{}."
)
"""For `naive`: no thinking, no search."""

REASON = (
    "Answer the question. Think step by step first, in a few sentences, from what you know. Then write the answer, as "
    "short as it can be, in \\boxed{}."
)
"""For `zero-shot`: thinking, no search."""

READ = (
    "Answer the question with the help of the passages; some of them may be of no use. Write nothing but the answer, "
    "as short as it can be: a name, a date, a number, yes or no. Put it in \\boxed{}."
)
"""For `rag`, and where another method reads what it has gathered."""

REASON_READ = (
    "Answer the question with the help of the passages; some of them may be of no use. Think step by step first, in a "
    "few sentences that name what you found. Then write the answer, as short as it can be, in \\boxed{}."
)
"""For `iter-retgen`: what is written becomes the next query."""

NEXT_THOUGHT = (
    "You work out the answer to a question one sentence at a time, with the help of passages; some of them may be of "
    "no use. You are shown the thoughts so far. Write the next thought, exactly one sentence, which states one fact "
    "that leads on. When nothing is missing any more, write instead: So the answer is \\boxed{the bare answer}."
)
"""For `ircot`: each sentence becomes the next query."""


def with_passages(question: str, passages: str, thoughts: str = "") -> str:
    """The user's turn: the passages, the question, and the thoughts so far where there are any."""
    text = f"Passages:\n\n{passages}\n\nQuestion: {question}" if passages else f"Question: {question}"
    return f"{text}\n\nThoughts so far: {thoughts}" if thoughts else text
