"""The window: runs, trajectories, evaluations and sets in a browser, read from their directories alone.

`folder.py` finds them, `views.py` answers what a page asks, `app.py` serves it, `export.py` writes it into a file. The
page itself is in `page/`. It plays nothing and scores nothing.
"""
