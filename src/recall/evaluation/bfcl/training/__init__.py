"""Tasks to train on over the leaderboard's stateful backends: made here, played out of process, checked by state.

They are none of the leaderboard's: other worlds, other words, other calls; `held.py` refuses what is not.
"""
