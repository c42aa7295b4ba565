"""What a second core brings: one engine with one thread, with two, two engines in threads, two in processes.

    python benchmarks/engine/replicas.py [--model FOLDER] [--rounds N] [-o FILE]

The workload of embedded.py, 256 requests at once in all, each with a prompt of its own or 16 to a prompt, through one
Runtime (the processes: half of them through one each).  Kinds take turns; numbers are medians over the rounds, tokens a
second of the clock on the wall and tokens a processor second.  Two processes share no interpreter: what they do more
than two threads is what the interpreter's lock costs.  OpenMP sleeps while it waits and malloc keeps its memory, as in
embedded.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from embedded import ENVIRONMENT, MAX_TOKENS, MODELS, ROOT, TEMPERATURE, circumstances, prompts

RESULT = ROOT / "benchmarks" / "results" / "engine" / "replicas.json"
CONCURRENT, TOTAL = 256, 1024
KINDS = {
    "one engine, 1 thread": (1, 1, 1), "one engine, 2 threads": (1, 1, 2), "two engines, 1 thread each": (1, 2, 1),
    "two processes, 1 thread each": (2, 1, 1),
}  # fmt: skip
"""Processes, engines in each, threads of each engine."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=MODELS / "reasoner")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("-o", "--output", type=Path, default=RESULT)
    options.add_argument("--part", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], ENVIRONMENT | os.environ | {"OMP_NUM_THREADS": "1"})
    if chosen.part:
        part(chosen.model, **json.loads(chosen.part))
        return
    rows = []
    for shared in (16, 1):
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(chosen.rounds):
            for kind, (processes, engines, threads) in KINDS.items():
                found[kind].append(turn(chosen.model, processes, engines=engines, threads=threads, shared=shared))
        for kind, turns in found.items():
            rows.append({"kind": kind, "concurrent": CONCURRENT, "per_prompt": shared} | {
                name: round(median(one[name] for one in turns)) for name in turns[0]
            })  # fmt: skip
            rows[-1]["all"] = [round(one["tokens_per_second"]) for one in turns]
            print(json.dumps(rows[-1]), flush=True)
    record = {"command": "python benchmarks/engine/replicas.py", "rounds": chosen.rounds, "rows": rows}
    record |= circumstances(chosen.model, 1)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def turn(model: Path, processes: int, *, engines: int, threads: int, shared: int) -> dict[str, float]:
    """Return tokens a second of `processes` that work at the same time."""
    work = []
    for number in range(processes):
        part = {"number": number, "of": processes, "engines": engines, "threads": threads, "shared": shared}
        command = [sys.executable, __file__, "--model", str(model), "--part", json.dumps(part)]
        work.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for one in work:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in work:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    answers: list[dict[str, Any]] = [json.loads(one.communicate()[0]) for one in work]
    tokens = sum(answer["tokens"] for answer in answers)
    return {
        "tokens_per_second": tokens / max(answer["wall"] for answer in answers),
        "tokens_per_processor_second": tokens / sum(answer["cpu"] for answer in answers),
    }


def part(model: Path, *, number: int, of: int, engines: int, threads: int, shared: int) -> None:
    import torch

    from outthink.core.refs import Prefix
    from outthink.core.request import Sample
    from outthink.core.runtime import Runtime
    from outthink.core.verbs import gather
    from outthink.models.engine import EngineBackend
    from outthink.models.replicas import Replicas

    torch.set_num_threads(threads)
    one = EngineBackend.load(model, name="m", rows=CONCURRENT // of // engines)
    backend = Replicas(one, count=engines, threads=threads)
    for replica in backend.backends:
        replica.engine.generate(["warm up"], n=8, max_tokens=8)
    roots = [Prefix(prompt) for prompt in prompts(TOTAL // shared)][number::of]
    work = [
        Sample(root, "m", i * shared + j, MAX_TOKENS, temperature=TEMPERATURE)
        for i, root in enumerate(roots)
        for j in range(shared)
    ]

    async def all_of_them() -> int:
        return len(await gather(iter(work)))

    runtime = Runtime({"m": backend})
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    run = runtime.run(all_of_them(), trace=None)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"tokens": run.cost.total("output"), "wall": wall, "cpu": cpu}), flush=True)
    runtime.close()


if __name__ == "__main__":
    main()
