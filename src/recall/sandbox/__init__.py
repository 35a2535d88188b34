"""Sandboxes: where the source of tools runs, and nowhere else."""
