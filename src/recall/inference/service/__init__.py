"""An agent behind an OpenAI-compatible endpoint: `recall serve`."""
