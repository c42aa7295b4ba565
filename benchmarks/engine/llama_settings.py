"""The settings under which llama.cpp is fastest here: all of them tried on little work, the best one used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from peers import ask
from shapes import gguf

# Two-byte weights may be of either kind, whichever its kernels like better.  Two-byte keys and values are float16, its
# default: with bfloat16 every setting was slower, by up to five times.
WEIGHTS = {"float32": ("float32",), "bfloat16": ("bfloat16", "float16")}
KEYS = {"float32": "float32", "bfloat16": "float16"}


STEPS = 8


def fastest(
    shape: str, dtype: str, job: Mapping[str, Any], *, cache: Path, venv: Path, threads: int, wait: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings to use (with the file) and all that were tried, each with the seconds of `job` as samples.

    Flash attention on and off, sampling inside the graph and outside, two-byte weights of either kind; then, with the
    best of them, how many rows it computes at once.  The seconds are those of reading the prompt and a few steps, the
    steps multiplied to `job`'s tokens.  Where nothing works, the settings say why under "missing".
    """
    tried: list[dict[str, Any]] = []

    def attempt(settings: dict[str, Any]) -> None:
        file = gguf(shape, settings["weights"], cache=cache, venv=venv)
        if isinstance(file, str):
            tried.append({**settings, "missing": file})
            return
        few = {"kind": "many", "tokens": STEPS, "prompts": job["prompts"][:3], "file": str(file)}
        done = ask("llama_cpp_peer", {**job, **few, **settings}, venv=venv, threads=threads, wait=wait, limit=600)
        if "missing" in done:
            tried.append({**settings, "missing": done["missing"]})
            return
        step = (done["whole"][0] - done["first"][0]) / (STEPS - 1)
        tried.append({**settings, "seconds": round(done["first"][0] + step * (job["tokens"] - 1), 4)})

    def best() -> dict[str, Any]:
        return min(tried, key=lambda row: float(row.get("seconds", math.inf)))

    for weights, flash, inside in product(WEIGHTS[dtype], (1, 0), (False, True)):
        attempt({"weights": weights, "kv": KEYS[dtype], "flash": flash, "inside": inside, "batch": 512})
    for batch in (256, 1024):
        attempt({**{k: v for k, v in best().items() if k not in ("seconds", "missing")}, "batch": batch})
    if "missing" in best():
        return {"missing": best()["missing"]}, tried
    chosen = {name: value for name, value in best().items() if name != "seconds"}
    return chosen | {"file": str(gguf(shape, chosen["weights"], cache=cache, venv=venv))}, tried
