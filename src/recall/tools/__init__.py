"""Tools: what a call may say, what a result looks like to a model, and schemas of Python functions."""
