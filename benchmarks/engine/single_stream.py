"""One stream, one token at a time: our engine and llama.cpp, and how much of the memory's bandwidth that is.

    python benchmarks/engine/single_stream.py [--shapes 15m,110m,500m,reasoner] [--dtypes float32,bfloat16] [--quick]

A token of a single stream reads every weight that it is multiplied with and every key and value before it, once.  The
physical limit is the time that reading so many bytes takes at the bandwidth measured just before; a model that fits the
processor's cache may be above it.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from llama_settings import fastest
from machine import circumstances, write
from many_samples import rates
from peers import ask, options, result_name, versions
from shapes import BYTES, SHAPES, config, folder, kv_bytes, matmul_parameters, prompts

PROMPT, TOKENS, REPEATS, SEED = 128, 128, 5, 7


def measured(shape: str, dtype: str, chosen: Namespace) -> list[dict[str, Any]]:
    """Return a row for each engine: tokens a second, milliseconds a token, bytes a second over what memory gives."""
    known, repeats = config(shape, cache=chosen.cache), 1 if chosen.quick else REPEATS
    length = min(PROMPT, SHAPES[shape].prompt)
    texts, ids = prompts(shape, count=1 + 2 * repeats, length=length, cache=chosen.cache)
    run = {"threads": chosen.threads, "wait": chosen.wait}
    job = {
        "kind": "many", "folder": str(folder(shape, dtype, cache=chosen.cache)), "dtype": dtype, "texts": texts,
        "prompts": ids, "samples": 1, "tokens": TOKENS, "temperature": 0.8,
        "options": {"rows": 1, "context": length + TOKENS + 16},
    }  # fmt: skip
    memory = ask("peaks", {"dtype": dtype, "rows": []}, venv=None, **run)
    read = matmul_parameters(known) * BYTES[dtype] + kv_bytes(known, dtype) * (length + TOKENS / 2)
    best, _ = fastest(shape, dtype, job, cache=chosen.cache, venv=chosen.venv, **run)
    answers = {"ours": ask("ours", job, venv=None, **run)}
    given = {**job, **best}
    answers["llama.cpp"] = best if "missing" in best else ask("llama_cpp_peer", given, venv=chosen.venv, **run)
    rows = []
    for engine, answer in answers.items():
        row = {"shape": shape, "dtype": dtype, "engine": engine, **rates(answer, 1, TOKENS)}
        if "decode" in row and "read" in memory:
            row["milliseconds"] = round(1000 / row["decode"], 3)
            row["limit_milliseconds"] = round(1000 * read / memory["read"], 3)
            row["share of bandwidth"] = round(row["decode"] * read / memory["read"], 3)
            row["share of copy bandwidth"] = round(row["decode"] * read / memory["copy"], 3)
            row["settings"] = {k: v for k, v in best.items() if k != "file"} if engine != "ours" else {}
        rows.append(row)
        print(json.dumps(row), flush=True)
    if all("decode" in row for row in rows):
        rows[1]["ours over it"] = round(rows[0]["decode"] / rows[1]["decode"], 2)
    return [*rows, {"shape": shape, "dtype": dtype, "memory": memory, "bytes_per_token": read}]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default="15m,110m,500m,reasoner")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    chosen = parser.parse_args()
    about, rows = circumstances(threads=chosen.threads, wait=chosen.wait) | {"seed": SEED}, []
    about["peers"] = versions(chosen.venv)
    for shape in chosen.shapes.split(","):
        for dtype in chosen.dtypes.split(","):
            rows += measured(shape, dtype, chosen)
            write(result_name(chosen, "single_stream"), about | {"prompt": PROMPT, "tokens": TOKENS, "rows": rows})


if __name__ == "__main__":
    main()
