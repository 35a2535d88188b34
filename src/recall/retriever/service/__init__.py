"""A retriever over HTTP: `recall retriever serve`."""
