"""The tokenizer of nano: byte-level BPE that spells names in syllables and numbers in digits, about 600 entries.

Short prompts are the cheapest speed there is, so the fixed halves of the prompt and the glue of JSON are tokens of
their own. Any text still encodes, byte by byte where need be, and decodes to itself.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
GLUE = (
    "system\n",
    "user\n",
    "assistant\n",
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    '", "parameters": {"type": "object", "properties": {"',
    '": {"type": "string"}}, "required": ["',
    '": {"type": "integer"}, "',
    '": {"type": "integer"}}, "required": ["',
    '"]}}}\n',
    '"]}}}',
    '\n{"name": "',
    '", "arguments": {"',
    '", "',
    '": "',
    '": ',
    ', "',
    '"}}\n',
    "}}\n",
    '{"',
    '"}',
    "\\boxed{",
    "error: ",
    "get_",
    "find_",
    "lookup_",
    "fetch_",
    "query_",
    "_of",
    "_lookup",
    "What is the ",
    "What is ",
    "Find the ",
    "Find ",
    "Tell me the ",
    "Tell me ",
    " of the ",
    " of a ",
    " of two numbers",
    " of ",
    " and the ",
    " and ",
    "'s ",
)
"""The last of them are what questions and descriptions are glued with, spaces included: so a word in a question is the
same token as in the name of a tool, and a name the same tokens as in an argument. Reading is then copying."""
SPLIT = r"\d| ?[A-Z]?[a-z]+| ?[A-Z]+| ?[^\sA-Za-z\d]+|\s+"
"""A word with the space before it; a capital starts a new one; a digit stands alone."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(
    texts: Iterable[str], *, prompt: str, syllables: Sequence[str], words: int = 400
) -> "PreTrainedTokenizerFast":
    """Build the tokenizer; the same arguments give the same one.

    Args:
        texts: rendered documents; their most frequent words become tokens.
        prompt: the prompt template, whose two halves around `{func_schemas}` become tokens.
        syllables: consonant and vowel pairs that names are spelled with.
        words: at most so many whole words.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    head, _, tail = prompt.partition("{func_schemas}")
    glue = [AddedToken(text, special=True, normalized=False) for text in (*CONTROL, head, tail)]
    glue += [AddedToken(text, special=False, normalized=False) for text in GLUE]

    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    spelled = [form for syllable in syllables for form in (syllable, syllable.capitalize())]
    merges = [(form[0], form[1]) for form in spelled]
    for pair in merges:
        vocabulary.setdefault("".join(pair), len(vocabulary))

    # Glue is cut out before words are counted, as it is before words are looked up.
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    plain.pre_tokenizer = split
    plain.add_tokens(glue)
    pieces = {token.content for token in glue}
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for span in _cut(text, pieces) for word, _ in split.pre_tokenize_str(span))
    named = re.compile(f"\u0120?({'|'.join(syllable.capitalize() for syllable in syllables)})({'|'.join(syllables)})+")
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    for word in [word for word in frequent if word not in vocabulary and not named.fullmatch(word)][:words]:
        vocabulary[word] = len(vocabulary)

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(glue)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _cut(text: str, pieces: Iterable[str]) -> list[str]:
    """What is left of `text` between the longest-first occurrences of `pieces`."""
    return re.split("|".join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True)), text)
