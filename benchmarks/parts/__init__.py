"""The measured parts of `benchmarks/engine.py`, each run in a process of its own."""
