"""The sandbox over HTTP: `recall sandbox serve`."""
