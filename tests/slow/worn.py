"""A policy with something to learn in a few steps: nano with noise on it, which solves about half of one call."""

from pathlib import Path

import torch

from recall.evaluation.local import PolicySettings, load


def worn(path: Path, noise: float = 0.22) -> Path:
    """Write it to a directory.

    Args:
        path: the directory to make.
        noise: standard deviation of what is added to a weight, in standard deviations of its tensor.
    """
    loaded = load(PolicySettings(device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return path
