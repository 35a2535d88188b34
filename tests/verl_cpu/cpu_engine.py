"""verl's FSDP engine under the device `cpu`, for tests only: actor_rollout_ref.model.external_lib=cpu_engine."""

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

if "cpu" not in EngineRegistry._engines["language_model"]["fsdp2"]:
    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)
