"""The Berkeley function-calling leaderboard (BFCL v4), played by the loop that trains and scored by its own checkers.

The leaderboard's package stays in an environment of its own (`setup.py`), behind a process that `checkers.py` talks to.
"""
