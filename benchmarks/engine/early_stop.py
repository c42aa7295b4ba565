"""32 samples of one prompt, stop at the first that is accepted: what is drawn for nothing, with and without abort.

    python benchmarks/engine/early_stop.py [--shapes 15m] [--quick]

Lengths (32 to 256 tokens) and which samples are accepted (one in five) are written down by a seeded rule, so that both
ways see the same.  With abort the others are cancelled when the first accepted one is there, which takes effect at the
next step; without, they run to their end, as samples of a server that cannot be called off do.  "useful" are the tokens
of samples that ended up to the decision; everything else was drawn for nothing.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from machine import circumstances, write
from peers import ask, options, result_name
from shapes import config as config_of
from shapes import folder, kv_bytes, prompts

SEED, SAMPLES, SHORTEST, LONGEST, ACCEPTED, PROMPT = 13, 32, 32, 256, 0.2, 256


def problems(count: int, *, seed: int) -> list[dict[str, list[Any]]]:
    """Return the lengths of each problem's samples and which of them are accepted; at least one is."""
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        accepted = draw.random(SAMPLES) < ACCEPTED
        accepted[draw.integers(SAMPLES)] = True
        lengths = draw.integers(SHORTEST, LONGEST + 1, SAMPLES)
        out.append({"lengths": lengths.tolist(), "accepted": accepted.tolist()})
    return out


def drawn_before(problem: dict[str, list[Any]]) -> int:
    """Return the tokens drawn when the shortest accepted sample ends, all having begun together."""
    ends = min(n for n, good in zip(problem["lengths"], problem["accepted"], strict=True) if good)
    return sum(min(n, ends) for n in problem["lengths"])


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default="15m")
    chosen = parser.parse_args()
    count, rows = (2 if chosen.quick else 20), []
    for shape in chosen.shapes.split(","):
        texts, _ = prompts(shape, count=1 + count, length=PROMPT, cache=chosen.cache)
        room = SAMPLES * (PROMPT + LONGEST) * kv_bytes(config_of(shape, cache=chosen.cache), "float32")
        job = {
            "kind": "race", "folder": str(folder(shape, "float32", cache=chosen.cache)), "dtype": "float32",
            "texts": texts, "samples": SAMPLES, "problems": problems(count, seed=SEED),
            "options": {"rows": SAMPLES, "kv_bytes": 4 * room, "context": PROMPT + LONGEST + 16},
        }  # fmt: skip
        for abort in (True, False):
            answer = ask("ours", {**job, "abort": abort}, venv=None, threads=chosen.threads, wait=chosen.wait)
            row = {"shape": shape, "samples": SAMPLES, "problems": count, "abort": abort, **answer}
            if "missing" not in answer:
                row["discarded share"] = round(1 - answer["useful"] / answer["generated"], 3)
                before = sum(drawn_before(problem) for problem in job["problems"])
                row["drawn after the decision"] = answer["generated"] - before
            rows.append(row)
            print(json.dumps(row), flush=True)
    about = circumstances(threads=chosen.threads, wait=chosen.wait) | {"seed": SEED}
    write(result_name(chosen, "early_stop"), about | {"rows": rows})


if __name__ == "__main__":
    main()
