"""Load a model and its tokenizer from a directory in Hugging Face's format. Nothing is fetched from a network."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recall.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NANO = "nano"
"""The name of the policy that comes with the package."""


def resolve(model: str) -> Path:
    """The directory of a model: `nano` is the one that comes with the package.

    Raises:
        ConfigError: there is no such directory, or no model in it.
    """
    path = Path(str(resources.files("recall.nano").joinpath("weights"))) if model == NANO else Path(model)
    if not path.is_dir():
        raise ConfigError(f"policy.model: {model}: no such directory; accepted are a model directory and {NANO!r}")
    if not (path / "config.json").is_file():
        raise ConfigError(f"policy.model: {model}: no config.json in it, so it is no model in Hugging Face's format")
    return path


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model directory.

    Raises:
        ConfigError: it cannot be read, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: the tokenizer cannot be read: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise ConfigError(f"{path}: the tokenizer has no chat template, so its turns are unknown; take a chat model")
    return tokenizer


def load_model(path: Path, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The model of a directory, in evaluation mode; a directory of an adapter loads its base model too.

    Raises:
        ConfigError: it cannot be read.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    adapter = (path / "adapter_config.json").is_file()
    try:
        if adapter:
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(
                path, dtype=dtype, is_trainable=True, local_files_only=True
            )
        else:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: the model cannot be read: {_first_line(error)}") from error
    return model.to(device).eval()


def with_lora(model: Any, rank: int) -> Any:
    """`model` with a trainable LoRA adapter on all its linear layers; nothing else is trained (Hu et al. 2021)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
