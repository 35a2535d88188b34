"""These tests train on a real verl; they run where it is installed: `make test-verl`."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
collect_ignore_glob = [] if find_spec("verl") else ["test_*.py"]
