"""The in-process engine: sampling and flat forward passes of Hugging Face models in plain torch."""

from recall.policy.torch.decoder import Decoder, decoder_for
from recall.policy.torch.engine import TorchPolicy
from recall.policy.torch.layout import GroupLayout
from recall.policy.torch.waves import EngineStats

__all__ = ["Decoder", "EngineStats", "GroupLayout", "TorchPolicy", "decoder_for"]
