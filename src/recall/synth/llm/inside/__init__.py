"""Source that is put beside generated code inside the sandbox.

It is read as text, imports the standard library alone, and never runs in this process.
"""
