"""The backend and the command line against a server that is not ours (see serve_transformers.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("serve_transformers.py")


@pytest.mark.integration
def test_everything_holds_against_the_server_of_transformers(tmp_path):
    """OUTTHINK_SERVER_PYTHON names a Python that has transformers[serving], if it is not this one."""
    python = os.environ.get("OUTTHINK_SERVER_PYTHON", sys.executable)
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--server-python", python, "--limit", "4", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert all(json.loads(out.read_text())["checks"].values())
