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


def fastest(
    shape: str, dtype: str, job: Mapping[str, Any], *, cache: Path, venv: Path, threads: int, wait: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings to use (with the file) and all that were tried, with the seconds of a `many` job of 8 tokens.

    Flash attention on and off, sampling inside the graph and outside, two-byte weights of either kind.  Where none
    works, the settings say why under "missing".
    """
    tried: list[dict[str, Any]] = []
    kv = KEYS[dtype]
    for weights, flash, inside in product(WEIGHTS[dtype], (1, 0), (False, True)):
        file = gguf(shape, weights, cache=cache, venv=venv)
        settings = {"file": str(file), "weights": weights, "kv": kv, "flash": flash, "inside": inside}
        if isinstance(file, str):
            return {"missing": file}, tried
        short = {**job, **settings, "kind": "many", "tokens": 8, "prompts": job["prompts"][:3]}
        done = ask("llama_cpp_peer", short, venv=venv, threads=threads, wait=wait, limit=600)
        # What counts is decoding, and reading the prompt where that takes longer than the first token of all.
        seconds = min(done["whole"]) if "missing" not in done else math.inf
        tried.append({**settings, "file": file.name, **(done if "missing" in done else {"seconds": seconds})})
        tried[-1]["path"] = str(file)
    good = [row for row in tried if "seconds" in row]
    if not good:
        return {"missing": str(tried[-1]["missing"])}, tried
    best = min(good, key=lambda row: float(row["seconds"]))
    chosen = {name: best[name] for name in ("weights", "kv", "flash", "inside")} | {"file": best["path"]}
    return chosen, [{name: value for name, value in row.items() if name != "path"} for row in tried]
