"""What runs inside vLLM's worker on the CPU: take weights from a file. vLLM mixes it in by `worker_extension_cls`.

vLLM's layerwise reload packs the linear layers anew, with one exception: an output layer that shares its weight with
the embedding keeps the product that was packed at first, so those that still have their weight are packed again.
"""

from typing import Any


class WeightReceiver:
    """Methods that vLLM's worker gets, called by name through `collective_rpc`."""

    vllm_config: Any
    model_runner: Any

    def recall_begin_weights(self) -> None:
        """Make the model ready for weights in the names and shapes of its checkpoint."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(self.model_runner.get_model())

    def recall_load_weights(self, path: str) -> None:
        """Load some weights from a file of safetensors; a weight is copied, so that the file may go."""
        from safetensors.torch import load_file
        from vllm.config import set_current_vllm_config

        weights = [(name, tensor.clone()) for name, tensor in load_file(path).items()]
        with set_current_vllm_config(self.vllm_config):
            self.model_runner.get_model().load_weights(weights)

    def recall_finish_weights(self) -> None:
        """Put everything that came into its place."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(model, self.model_runner.model_config)
            for layer in model.modules():
                if hasattr(layer, "cpu_linear") and layer.weight.numel():
                    layer.quant_method.process_weights_after_loading(layer)
