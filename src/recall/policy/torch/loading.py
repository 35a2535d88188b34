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
        ConfigError: it cannot be read, is not a fast one, or has no chat template.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: the tokenizer cannot be read: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{path}: {type(tokenizer).__name__} is no fast tokenizer; a tokenizer.json is needed")
    if not tokenizer.chat_template:
        raise ConfigError(f"{path}: the tokenizer has no chat template, so its turns are unknown; take a chat model")
    return tokenizer


def device_named(name: str) -> torch.device:
    """The device that a setting of `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("policy.device: 'cuda' is not available on this machine; accepted here are auto and cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """What a setting of `auto`, `float32` or `bfloat16` means on `device`."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def load_model(path: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a directory, in evaluation mode; a directory of an adapter loads its base model too.

    Args:
        path: in Hugging Face's format.
        device: where it goes.
        dtype: of its parameters; those of an adapter stay in float32.

    Raises:
        ConfigError: it cannot be read, or lacks weights.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any
    adapter = (path / "adapter_config.json").is_file()
    try:
        if adapter:
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(
                path, dtype=dtype, is_trainable=True, local_files_only=True
            )
        else:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, local_files_only=True, output_loading_info=True
            )
            model, info = loaded
            if missing := sorted(info["missing_keys"]):
                raise ConfigError(f"{path}: weights are missing, {missing[0]} and {len(missing) - 1} more")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigError(f"{path}: the model cannot be read: {_first_line(error)}") from error
    return model.to(device).eval()


def with_lora(model: Any, rank: int) -> Any:
    """`model` with a trainable LoRA adapter on all its linear layers; nothing else is trained (Hu et al. 2021).

    Raises:
        ConfigError: it has an adapter already.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise ConfigError("policy.lora_rank: the model has an adapter already, which is trained; leave the rank at 0")
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
