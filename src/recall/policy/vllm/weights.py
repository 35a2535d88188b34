"""The weights of a trainer's model, under the names of its checkpoint, adapters merged. It sends them nowhere."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def named_weights(model: Any) -> "Iterator[tuple[str, torch.Tensor]]":
    """Each weight once, as a checkpoint of the whole model would hold it.

    Args:
        model: a causal language model of `transformers`, or one of `peft` with LoRA adapters, whose products are added
            to the weights that they belong to, in the type of these.
    """
    import torch

    adapted = {}
    if hasattr(model, "peft_config"):
        model = model.get_base_model()
        adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if _of_adapter(name):
                continue
            owner, _, leaf = name.rpartition(".")
            owner = owner.removesuffix(".base_layer")
            weight = parameter.detach()
            if leaf == "weight" and owner in adapted:
                module = adapted[owner]
                for adapter in module.active_adapters:
                    weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
            yield f"{owner}.{leaf}" if owner else leaf, weight


def _of_adapter(name: str) -> bool:
    return any(part.startswith("lora_") for part in name.split("."))
