"""Tests of engines with environments of their own, which `make test-vllm` and `make test-trl` set up."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
collect_ignore_glob = [
    f"test_{package}*.py" for package in ("vllm", "trl") if find_spec(package) is None or find_spec("recall") is None
]
