"""What this machine can do at most, measured now: products of matrices, and reading and copying memory.

{dtype, rows: [..]} on stdin; answers with FLOP/s of the fastest weight size for each number of rows, by oneDNN with
weights laid out beforehand where torch has it and by torch's own choice, and with bytes per second.
"""

import json
import sys
import time

import torch
from torch.nn import functional as F

SIZES = ((768, 2048), (1024, 1024), (1536, 3584), (2048, 2048))  # (in, out)
MEMORY = 1 << 28


def best(work, *, least: float = 0.15, repeats: int = 4) -> float:
    """Return the seconds of one call, the best of several rounds."""
    work()
    count, found = 1, float("inf")
    for _ in range(repeats):
        while True:
            begun = time.perf_counter()
            for _ in range(count):
                work()
            took = time.perf_counter() - begun
            if took >= least:
                break
            count *= 2
        found = min(found, took / count)
    return found


def products(rows: int, kind: torch.dtype) -> float:
    found = 0.0
    for inside, outside in SIZES:
        x, weight = torch.randn(rows, inside).to(kind), torch.randn(outside, inside).to(kind)
        ways = [lambda: F.linear(x, weight)]  # noqa: B023
        if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
            ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))  # noqa: B023
        found = max(found, *(2 * rows * inside * outside / best(way) for way in ways))
    return found


job = json.loads(sys.stdin.read())
torch.set_num_threads(job["threads"])
kind = getattr(torch, job["dtype"])
with torch.inference_mode():
    flops = {str(rows): products(rows, kind) for rows in job["rows"]}
    source, target = torch.ones(MEMORY), torch.empty(MEMORY)
    copying = best(lambda: target.copy_(source), repeats=3)
    reading = best(lambda: source.sum(), repeats=3)
print(json.dumps({"flops": flops, "read": 4 * MEMORY / reading, "copy": 8 * MEMORY / copying}))
