"""How speed and memory grow: batch 1 to 512, prefix 128 to 16k, depth of the tree 1 to 64. Every point is a process.

    python benchmarks/engine/growth.py [--shapes 15m,110m] [--quick]

Memory is the peak of the process less what it took before the engine was loaded, beside what it has to hold: weights,
and the pages of keys and values in use at the end (16 tokens each, the prompt's once, a branch's own for each branch).
A tree of depth d is a path of 1,088 tokens in d pieces, and 64 branches that leave it at its d places.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from machine import circumstances, write
from peers import ask, options, result_name
from shapes import config, folder, kv_bytes, prompts

SEED, TOKENS, PATH, PAGE = 17, 32, 1088, 16
BATCHES, PREFIXES, DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (128, 512, 1024, 2048, 4096, 8192, 16384), (
    1, 2, 4, 8, 16, 32, 64,
)  # fmt: skip


def points(quick: bool) -> Iterator[dict[str, int]]:
    """Yield what is measured: the size that grows, and the others as they stay."""
    few = slice(2, 7, 4) if quick else slice(None)
    yield from ({"grows": "batch", "samples": batch, "prompt": 1024} for batch in BATCHES[few])  # type: ignore[misc]
    yield from ({"grows": "prefix", "samples": 64, "prompt": prompt} for prompt in PREFIXES[few])  # type: ignore[misc]
    yield from (
        {"grows": "depth", "samples": 64, "prompt": PATH, "depth": depth}  # type: ignore[misc]
        for depth in DEPTHS[few]
    )


def pages(point: dict[str, Any]) -> int:
    """Return the pages in use at the end: the path's, and each branch's own, a begun page of the path copied."""
    begun = [point["prompt"] % PAGE]
    if point["grows"] == "depth":
        piece = point["prompt"] // point["depth"]
        begun = [piece * (i % point["depth"] + 1) % PAGE for i in range(point["samples"])]
    own = sum(-(-(begun[i % len(begun)] + TOKENS) // PAGE) for i in range(point["samples"]))
    return -(-int(point["prompt"]) // PAGE) + own


def measured(point: dict[str, Any], shape: str, dtype: str, chosen: Namespace) -> dict[str, Any]:
    """Return tokens a second and memory at one point, from a process of its own."""
    (short, *_), _ = prompts(shape, count=1, length=64, cache=chosen.cache)
    (text, *_), tokens = prompts(shape, count=1, length=point["prompt"], cache=chosen.cache, seed=SEED)
    each = kv_bytes(config(shape, cache=chosen.cache), dtype)
    path = folder(shape, dtype, cache=chosen.cache)
    # What the path, its branches and the warm-up take, and as much again: the cap is not what is measured.
    room = 2 * each * (len(tokens[0]) + 2 * point["samples"] * (TOKENS + PAGE) + 64) + (1 << 26)
    if chosen.rows_of_context:
        room += 2 * each * point["samples"] * (len(tokens[0]) + TOKENS + PAGE)
    job = {
        "kind": "leaving", "folder": str(path), "dtype": dtype, "texts": [short, text], "samples": point["samples"],
        "tokens": TOKENS, "depth": point.get("depth", 1),
        "options": {"rows": point["samples"], "kv_bytes": room, "context": len(tokens[0]) + TOKENS + PAGE},
    }  # fmt: skip
    answer = ask("ours", job, venv=None, threads=chosen.threads, wait=chosen.wait, malloc=chosen.malloc)
    row = {**point, "shape": shape, "dtype": dtype, "tokens": TOKENS}
    if "missing" in answer:
        return row | {"missing": answer["missing"]}
    row["decode"] = round(point["samples"] * TOKENS / answer["seconds"], 1)
    row["prompt_tokens_per_second"] = round(len(tokens[0]) / answer["reading"], 1)
    held = (path / "model.safetensors").stat().st_size + pages(point) * PAGE * each
    took = answer["peak_bytes"] - answer["before_bytes"]
    return row | {"peak_bytes": answer["peak_bytes"], "engine_bytes": took, "needed_bytes": held,
                  "memory over needed": round(took / held, 2)}  # fmt: skip


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default="15m,110m")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--rows-of-context", action="store_true", help="room for every row's whole context")
    parser.add_argument("--malloc", action="store_true", help="keep memory as in the other measurements")
    chosen = parser.parse_args()
    about, rows = circumstances(threads=chosen.threads, wait=chosen.wait) | {"seed": SEED}, []
    for shape in chosen.shapes.split(","):
        for dtype in chosen.dtypes.split(","):
            for point in points(chosen.quick):
                rows.append(measured(point, shape, dtype, chosen))
                print(json.dumps(rows[-1]), flush=True)
                write(result_name(chosen, "growth"), about | {"rows": rows})


if __name__ == "__main__":
    main()
