"""The in-process engine: sampling and flat forward passes of Hugging Face models in plain torch."""
