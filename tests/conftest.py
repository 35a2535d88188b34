"""What several test files share: hypothesis without a deadline, nano's tokenizer, a tiny random model on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

settings.register_profile("recall", deadline=None)
settings.load_profile("recall")


@pytest.fixture(scope="session")
def nano_tokenizer() -> "PreTrainedTokenizerFast":
    """Nano's own tokenizer, built from nothing."""
    pytest.importorskip("torch")
    from recall.nano.pretrain import nano_tokenizer as build

    return build(0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, nano_tokenizer: "PreTrainedTokenizerFast") -> Path:
    """A directory with nano's tokenizer and a Qwen3 of 2 layers, width 32, random weights."""
    from recall.nano.pretrain import PretrainSettings, nano_model, save_model

    path = tmp_path_factory.mktemp("tiny")
    size = PretrainSettings(layers=2, hidden=32, feed_forward=64)
    vocabulary = nano_tokenizer.get_vocab()
    model = nano_model(size, len(nano_tokenizer), vocabulary["<|endoftext|>"], vocabulary["<|im_end|>"])
    save_model(model, nano_tokenizer, path)
    return path
