"""Recorded trajectories looked at again: scored by another reward, their calls run anew.

Nothing is sampled and nothing is written into a run.
"""
