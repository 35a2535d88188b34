"""Measuring a policy: play tasks, score the trajectories, count successes."""
