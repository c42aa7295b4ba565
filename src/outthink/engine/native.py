"""The kernels in C: compiled for this very machine at first use, kept for the next, and done without where that fails.

A compiler (`cc`, or what `CC` names) is all it takes; the library is kept in `$XDG_CACHE_HOME/outthink`, under a name
made of everything that it depends on.  OUTTHINK_NATIVE=0 turns them off: the engine does the same in torch, slower.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = "-O3 -std=gnu11 -fno-math-errno -fno-trapping-math -ffp-contract=fast -shared -fPIC".split()
_TRIES: tuple[list[str], ...] = (["-march=native", "-fopenmp"], ["-march=native"], [])
_P, _N, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_SIGNATURES = {
    "attend": [_P] * 9 + [_N] * 8,
    "norm": [_P] * 4 + [_N] * 2 + [_F, _N],
    "spread": [_P] * 11 + [_N] * 5 + [_F, _F, _N],
    "gate": [_P] * 2 + [_N] * 3,
    "draw": [_P] * 6 + [_N] * 2,
}

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 16)
"""Widths of heads, in vectors of 16, that `attend` is compiled for."""


class Kernels:
    """The functions of kernels.c; arguments are addresses (`Tensor.data_ptr()`, 0 for none) and numbers."""

    attend: Callable[..., None]
    norm: Callable[..., None]
    spread: Callable[..., None]
    gate: Callable[..., None]
    draw: Callable[..., None]

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
            setattr(self, name, function)


@cache
def kernels() -> Kernels | None:
    """Return the kernels, compiling them if need be; None where they are turned off or do not compile (says why)."""
    if os.environ.get("OUTTHINK_NATIVE") == "0":
        return None
    import torch  # brings the OpenMP runtime whose threads the kernels share

    source = _SOURCE.read_bytes()
    compiler = os.environ.get("CC", "cc")
    identity = repr((source, _FLAGS, compiler, platform.machine(), _processor(), torch.__version__))
    path = _folder() / f"kernels-{blake2b(identity.encode(), digest_size=10).hexdigest()}.so"
    problem = None if path.is_file() else _compile(compiler, path)
    if problem is None:
        try:
            return Kernels(ctypes.CDLL(str(path)))
        except (OSError, AttributeError) as error:  # cut short, of another machine, or where nothing may be executed
            problem = f"{path} cannot be used ({error})"
    warnings.warn(
        f"the engine runs without its C kernels, several times slower: {problem}. Install a C compiler "
        "(Debian: apt install gcc) or name one in CC; OUTTHINK_NATIVE=0 silences this",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _compile(compiler: str, path: Path) -> str | None:
    """Write the library to `path`, whole or not at all; return what went wrong with the last try, or None."""
    problem = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            for extra in _TRIES:
                command = [*compiler.split(), *_FLAGS, *extra, str(_SOURCE), "-o", str(made), "-lm"]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode == 0:
                    os.replace(made, path)
                    return None
                problem = (done.stderr.strip().splitlines() or [f"{compiler} ended with {done.returncode}"])[0]
    except OSError as error:
        return str(error)
    return problem


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outthink"


def _processor() -> str:
    """Return what -march=native depends on, where the system says it: a home may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
