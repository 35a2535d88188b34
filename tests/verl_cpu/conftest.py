"""These tests train on a real verl; they run where it is installed: `make test-verl`."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("verl") else ["test_*.py"]
