"""The engines beside ours, in a virtual environment of their own outside the repository.

    python benchmarks/engine/peers.py [--venv FOLDER] [--pip-flags "..."]      build it (about 4 minutes on 2 cores)

llama.cpp is compiled from the source package of llama-cpp-python for this very processor.  Engines run as processes:
a job goes in as JSON on stdin, one line of JSON comes out.  A peer that is not there, or that fails, is reported with
the reason under "missing", and counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import environment

WORKERS = Path(__file__).resolve().parent / "workers"
VENV = Path(tempfile.gettempdir()) / "outthink-peers"
PACKAGES = ("torch==2.13.0", "transformers==5.23.0", "accelerate", "gguf", "safetensors", "numpy")
LLAMA = ("--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36")
CMAKE = "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"


def build(venv: Path, *, pip_flags: str = "") -> None:
    """Make the environment at `venv`; what is there already stays. Raises CalledProcessError where a step fails."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", *shlex.split(pip_flags)]
    subprocess.run([*install, *PACKAGES], check=True)
    jobs = {"CMAKE_ARGS": CMAKE, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
    subprocess.run([*install, *LLAMA], check=True, env=os.environ | jobs)


def ask(
    worker: str, job: Mapping[str, Any], *, venv: Path | None, threads: int, wait: str, malloc: bool = True,
    limit: float = 7200,
) -> dict[str, Any]:  # fmt: skip
    """Return what `worker` answers to `job`, or {"missing": reason}.

    venv: whose python runs it; None is this one, which has our engine.  limit: seconds after which it is ended.
    """
    python = Path(sys.executable) if venv is None else venv / "bin" / "python"
    if not python.exists():
        return {"missing": f"no {python}; run benchmarks/engine/peers.py"}
    settings = environment(threads=threads, wait=wait, malloc=malloc)
    try:
        done = subprocess.run(
            [str(python), str(WORKERS / f"{worker}.py")], input=json.dumps({**job, "threads": threads}),
            capture_output=True, text=True, env=settings, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"missing": f"not done after {limit:.0f} seconds"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return {"missing": said[-1][:300] if said else f"ended with {done.returncode}"}
    return dict(json.loads(lines[-1]))


def versions(venv: Path) -> dict[str, str]:
    """Return the versions of the peers that are installed in `venv`; nothing where there is none."""
    ask_for = "import importlib.metadata as m, json; names = ('torch', 'transformers', 'llama_cpp_python', 'gguf'); "
    ask_for += "print(json.dumps({n: m.version(n) for n in names if any(m.distributions(name=n))}))"
    if not (venv / "bin" / "python").exists():
        return {}
    done = subprocess.run([str(venv / "bin" / "python"), "-c", ask_for], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def options(text: str) -> argparse.ArgumentParser:
    """Return the options that every script here has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=VENV, help="environment of the peers")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "outthink-shapes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--wait", choices=("ACTIVE", "PASSIVE"), default="ACTIVE", help="OMP_WAIT_POLICY, for all")
    parser.add_argument("--name", help="name of the result, if not the script's")
    parser.add_argument("--quick", action="store_true", help="little work, to try the script; writes quick_NAME.json")
    return parser


def result_name(chosen: argparse.Namespace, name: str) -> str:
    """Return the name that the result goes by: trials never overwrite a measurement."""
    return ("quick_" if chosen.quick else "") + (chosen.name or name)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--venv", type=Path, default=VENV)
    given.add_argument("--pip-flags", default=os.environ.get("PIP_FLAGS", ""))
    build(given.parse_args().venv, pip_flags=given.parse_args().pip_flags)
