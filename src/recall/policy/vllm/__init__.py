"""An in-process policy: vLLM's AsyncLLM, with weights that follow a trainer's. Importing it loads no vLLM."""

from recall.policy.vllm.engine import VllmPolicy
from recall.policy.vllm.settings import VllmSettings

__all__ = ["VllmPolicy", "VllmSettings"]
