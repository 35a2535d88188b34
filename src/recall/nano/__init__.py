"""Nano: a policy of about one million parameters that knows the format and single calls, and nothing more."""
