"""Where a measurement was made: the environment given to every engine alike, the commit, the machine, the record."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "engine"
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
PACKAGES = ("torch", "tokenizers", "numpy")


def environment(*, threads: int, wait: str, malloc: bool = True) -> dict[str, str]:
    """Return the environment of an engine's process: the same for ours and for the peers.

    wait: "ACTIVE" lets OpenMP threads spin between products (best where nothing else runs), "PASSIVE" lets them sleep
    (best where others use the cores).  malloc: glibc keeps memory it was given back; off where memory is measured.
    """
    settings = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": wait, "TOKENIZERS_PARALLELISM": "false"}
    clean = {name: value for name, value in os.environ.items() if name not in MALLOC}
    return clean | settings | (MALLOC if malloc else {})


def circumstances(*, threads: int, wait: str) -> dict[str, Any]:
    """Return the command, commit, machine, load and versions of this run."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT)
    return {
        "command": " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]]),
        "commit": commit.stdout.strip(), "threads": threads, "environment": MALLOC | {"OMP_WAIT_POLICY": wait},
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.machine()}, {platform.system()}",
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }  # fmt: skip


def write(name: str, record: Mapping[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write `record` as NAME.json into `folder` and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    """Return the processor's name where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    wide = "AVX-512" if any("avx512f" in line for line in lines) else "no AVX-512"
    return f"{names[0] if names else 'unknown processor'} ({wide})"
