"""Tests of engines with environments of their own, which `make test-vllm` and `make test-trl` set up."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
OF = {"vllm": ("test_vllm_policy.py", "test_vllm_training.py"), "trl": ("test_trl_training.py",)}
"""The files that need a package in their own process."""
collect_ignore = [file for package, files in OF.items() if find_spec(package) is None for file in files]
if "RECALL_VLLM_PYTHON" not in os.environ:
    collect_ignore.append("test_vllm_server.py")
