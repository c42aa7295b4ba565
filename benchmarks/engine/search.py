"""Two searches as trees of steps: beam of 4 with 16 levels, REBASE with 64 branches; tokens computed and time.

    python benchmarks/engine/search.py [--shapes 15m,110m] [--dtypes float32] [--quick]

Which branches go on, and how many children each has, is written down by a seeded rule before anything is drawn, and
every step has the same number of tokens, so that all engines grow the same tree: ours (a child continues its parent's
draft), transformers (generate for all texts of a level in a batch, which reads every text again), llama.cpp as a server
with prefix cache (a slot for every branch; a request goes to the slot that has most of it) and llama.cpp with forks by
sequence copy.  "computed" counts every token that went through the model or was drawn; "unique" is the prompt and every
drawn token once.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from typing import Any

import numpy as np
from llama_settings import fastest
from machine import circumstances, write
from peers import ask, options, result_name, versions
from shapes import SHAPES, folder, kv_bytes, prompts
from shapes import config as config_of

SEED, TEMPERATURE, PROMPT, STEP = 11, 0.8, 512, 16
ENGINES = ("ours", "llama.cpp forks", "llama.cpp server", "transformers")
Plan = list[list[int]]
"""For each level, the index of every branch's parent among the branches of the level before."""


def beam(*, width: int, fan: int, levels: int, seed: int) -> Plan:
    """Return the plan of a beam search: `width` of `width * fan` branches go on at every level, `fan` children each."""
    draw = np.random.default_rng(seed)
    plan, alive = [[0] * (width * fan)], width * fan
    for _ in range(levels - 1):
        kept = sorted(draw.choice(alive, width, replace=False).tolist())
        plan.append([parent for parent in kept for _ in range(fan)])
    return plan


def rebase(*, branches: int, levels: int, temperature: float, seed: int) -> Plan:
    """Return the plan of REBASE: children in proportion to softmax(reward / temperature), rewards uniform in [0, 1].

    Every branch is given ceil(share of what is left) from the best on, so that the widths sum to `branches`.
    """
    draw = np.random.default_rng(seed)
    plan, alive = [[0] * branches], branches
    for _ in range(levels - 1):
        rewards = draw.random(alive)
        left, mass, widths = branches, float(np.exp(rewards / temperature).sum()), {}
        for parent in np.argsort(-rewards).tolist():
            weight = math.exp(rewards[parent] / temperature)
            widths[parent] = min(left, round(left * weight / mass)) if mass > weight else left
            left, mass = left - widths[parent], mass - weight
        plan.append([parent for parent in sorted(widths) for _ in range(widths[parent])])
        alive = len(plan[-1])
    return plan


def measured(name: str, plan: Plan, shape: str, dtype: str, chosen: Namespace) -> list[dict[str, Any]]:
    """Return a row for each engine that grows `plan`."""
    length = min(PROMPT, SHAPES[shape].prompt)
    texts, ids = prompts(shape, count=3, length=length, cache=chosen.cache)
    context, width = length + (len(plan) + 1) * STEP, max(map(len, plan))
    room = 3 * width * context * kv_bytes(config_of(shape, cache=chosen.cache), dtype)
    run = {"threads": chosen.threads, "wait": chosen.wait}
    job: dict[str, Any] = {
        "kind": "tree", "folder": str(folder(shape, dtype, cache=chosen.cache)), "dtype": dtype, "texts": texts,
        "prompts": ids, "plan": plan, "tokens": STEP, "temperature": TEMPERATURE, "samples": width,
        "options": {"rows": width, "kv_bytes": room, "context": context},
    }  # fmt: skip
    unique = len(ids[1]) + sum(map(len, plan)) * STEP
    best: dict[str, Any] = {}
    rows = []
    for engine in chosen.engines.split(","):
        if engine == "ours":
            answer = ask("ours", job, venv=None, **run)
        elif engine == "transformers":
            answer = ask("transformers_peer", job, venv=chosen.venv, **run)
        else:
            best = best or fastest(shape, dtype, job, cache=chosen.cache, venv=chosen.venv, **run)[0]
            given = {**job, **best, "forks": engine.endswith("forks")}
            answer = best if "missing" in best else ask("llama_cpp_peer", given, venv=chosen.venv, **run)
        row = {"search": name, "shape": shape, "dtype": dtype, "engine": engine, "unique": unique}
        if "missing" in answer:
            rows.append(row | {"missing": answer["missing"]})
        else:
            computed = answer["computed"] + (answer["generated"] if engine in ("ours", "transformers") else 0)
            rows.append(row | {
                "seconds": round(answer["seconds"], 3), "computed": computed, "generated": answer["generated"],
                "computed over unique": round(computed / unique, 3),
                "tokens_per_second": round(answer["generated"] / answer["seconds"], 1),
                "settings": {k: v for k, v in best.items() if k != "file"} if "llama" in engine else {},
            })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    ours = next((row for row in rows if row["engine"] == "ours" and "seconds" in row), None)
    for row in rows:
        if ours and "seconds" in row:
            row["ours over it"] = round(row["seconds"] / ours["seconds"], 2)
    return rows


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default="15m,110m")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--engines", default=",".join(ENGINES))
    chosen = parser.parse_args()
    levels = (3, 2) if chosen.quick else (16, 8)
    plans = {
        "beam 4 x 16": beam(width=4, fan=4, levels=levels[0], seed=SEED),
        "REBASE 64": rebase(branches=64, levels=levels[1], temperature=0.2, seed=SEED),
    }
    about, rows = circumstances(threads=chosen.threads, wait=chosen.wait) | {"seed": SEED}, []
    about["peers"] = versions(chosen.venv)
    for shape in chosen.shapes.split(","):
        for dtype in chosen.dtypes.split(","):
            for name, plan in plans.items():
                rows += measured(name, plan, shape, dtype, chosen)
                write(result_name(chosen, "search"), about | {"prompt": PROMPT, "step": STEP, "rows": rows})


if __name__ == "__main__":
    main()
