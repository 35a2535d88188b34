"""An index of the trajectories of a run: columns to filter and sort by, words to search for, places to read from.

It is made from the run directory alone, grows with it, and lives in a cache directory, where it may be thrown away. It
never writes into a run. `index.py` keeps it, `find.py` asks it, `fetch.py` reads what it points at.
"""
