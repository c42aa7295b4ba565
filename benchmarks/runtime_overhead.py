"""What the runtime itself takes: microseconds and bytes per request, with a backend that does nothing.

    python benchmarks/runtime_overhead.py [--quick] [-o benchmarks/results/runtime_overhead.json]

Processor time of this process, the best of several repeats; memory by tracemalloc. Every request is a `Sample` that is
built, priced at its bound, reserved in every limit, dispatched, settled, booked and recorded. Standard library only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from outthink.core.backend import Item, Settled
from outthink.core.budget import Budget, Card
from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.runtime import Runtime
from outthink.core.verbs import gather, within

MODEL = "null"
CARDS = {MODEL: Card(prices={"prompt": 75_000, "output": 300_000}, params=800_000, attention=64)}
LIMITS = {
    0: Budget(),
    1: Budget.parse("1e12 tokens"),
    3: Budget.parse("1e12 tokens, $1e9, 1e21 flops"),
}
NESTED = [Budget.parse(f"{depth * 10_000} tokens, ${depth}, {depth}e12 flops") for depth in range(21)]
PROMPT = Prefix("a prompt")
SEED = 0


class Null:
    """Answers everything at the next step; `mute`: nothing, ever."""

    stepped = True
    capabilities = frozenset({"sample", "seed"})

    def __init__(self, *, slots: int = 1 << 30, mute: bool = False) -> None:
        self.live: list[Any] = []
        self.slots, self.mute = slots, mute

    def bound(self, ticket: Any, request: Any) -> Cost:
        return Cost.of(MODEL, calls=1, prompt=20, output=request.max_tokens)

    def room(self) -> int:
        return self.slots - len(self.live)

    def submit(self, ticket: Any, request: Any) -> None:
        self.live.append(ticket)

    def cancel(self, ticket: Any) -> None:
        self.live.remove(ticket)

    def step(self) -> Sequence[Item]:
        if self.mute:
            return ()
        live, self.live = self.live, []
        return [Settled(ticket, "reply", Cost.of(MODEL, calls=1, prompt=20, output=30)) for ticket in live]

    def attach(self, post: Any) -> None:
        pass

    def close(self) -> None:
        pass


def ask(i: int) -> Sample:
    return Sample(PROMPT, MODEL, i, max_tokens=64, temperature=0.8)


async def rollout(i: int) -> str:
    return await ask(i)  # type: ignore[return-value]


async def flat(n: int) -> int:
    return len(await gather(ask(i) for i in range(n)))


async def coroutines(n: int) -> int:
    return len(await gather(rollout(i) for i in range(n)))


async def sequential(n: int) -> int:
    for i in range(n):
        await ask(i)
    return n


async def tree(depth: int, nested: bool) -> int:
    """Ask at every level and return their number; nested: every level has its own sub-budget inside the one above."""
    await ask(depth)
    if depth <= 1:
        return 1
    below = tree(depth - 1, nested)
    if not nested:
        return 1 + (await gather([below]))[0]
    (outcome,) = await within(NESTED[depth - 1], [below])
    return 1 + (outcome.value or 0)


Start = Callable[[Runtime, dict[str, Any]], Any]
"""Starts the work of one measurement in a fresh runtime."""


def one(make: Callable[[], Coroutine[Any, Any, Any]]) -> Start:
    return lambda runtime, options: runtime.start(make(), **options)


def problems(count: int, each: int) -> Start:
    return lambda runtime, options: [runtime.start(flat(each), **options) for _ in range(count)]


def trees(count: int, depth: int, *, nested: bool) -> Start:
    def start(runtime: Runtime, options: dict[str, Any]) -> Any:
        return [runtime.start(tree(depth, nested), **options) for _ in range(count)]

    return start


def seconds(start: Start, options: dict[str, Any], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        runtime = Runtime({MODEL: Null()}, cards=CARDS)
        gc.collect()
        before = time.process_time()
        held = start(runtime, options)
        runtime.drive()
        best = min(best, time.process_time() - before)
        for run in held if isinstance(held, list) else [held]:
            assert run.stopped == "finished" and run.state == run.cost.total("calls"), run
        del held
    return best


def peak(start: Start, options: dict[str, Any]) -> int:
    """Return the peak of allocated bytes, results included."""
    runtime = Runtime({MODEL: Null()}, cards=CARDS)
    gc.collect()
    tracemalloc.start()
    held = start(runtime, options)
    runtime.drive()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del held
    return most


def waiting(n: int, make: Callable[[int], Coroutine[Any, Any, Any]]) -> int:
    """Return the bytes alive when `n` requests are asked for and a backend with room for 64 has not answered."""
    runtime = Runtime({MODEL: Null(slots=64, mute=True)}, cards=CARDS)
    gc.collect()
    tracemalloc.start()
    run = runtime.start(make(n), budget=LIMITS[3], trace="full")
    for _ in range(3):
        runtime.step()
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    run.cancel()
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, once")
    parser.add_argument("-o", "--output", default=str(Path(__file__).parent / "results" / "runtime_overhead.json"))
    given = parser.parse_args()
    # As the entry points of outthink do: young collections of 700 objects cost more than the whole runtime.
    gc.set_threshold(50_000, 20, 100)
    scale, repeats = (10, 1) if given.quick else (1, 5)
    k1, k10, k100 = 1_000, 10_000, 100_000 // scale
    workloads: list[tuple[str, int, Start]] = [
        ("best of 1k, plain requests", k1, one(lambda: flat(k1))),
        ("best of 10k, plain requests", k10, one(lambda: flat(k10))),
        ("best of 100k, plain requests", k100, one(lambda: flat(k100))),
        ("best of 1k, a coroutine each", k1, one(lambda: coroutines(k1))),
        ("best of 10k, a coroutine each", k10, one(lambda: coroutines(k10))),
        ("best of 100k, a coroutine each", k100, one(lambda: coroutines(k100))),
        ("10k requests one after another", k10, one(lambda: sequential(k10))),
        ("1,000 problems x 100 requests", 1000 // scale * 100, problems(1000 // scale, 100)),
        ("100 trees of depth 20", 2000, trees(100, 20, nested=False)),
        ("100 trees of depth 20, nested sub-budgets", 2000, trees(100, 20, nested=True)),
    ]
    columns: list[tuple[str, int, str | None]] = [
        ("0 limits", 0, None), ("1 limit", 1, None), ("3 limits", 3, None), ("3 + trace", 3, "full"),
    ]  # fmt: skip
    table: dict[str, dict[str, float]] = {}
    print(
        f"{'us per request':44}"
        + "".join(f"{name:>12}" for name, _, _ in columns)
        + f"{'B, no trace':>13}{'B, trace':>10}"
    )
    for name, n, start in workloads:
        row: dict[str, float] = {}
        times = 4 * repeats if n < k10 else repeats if n == k10 else max(repeats // 2, 1)
        for column, limits, trace in columns:
            options = {"budget": LIMITS[limits], "trace": trace}
            row[column] = round(seconds(start, options, times) / n * 1e6, 2)
        row["bytes"] = round(peak(start, {"budget": LIMITS[3], "trace": None}) / n)
        row["bytes with trace"] = round(peak(start, {"budget": LIMITS[3], "trace": "full"}) / n)
        table[name] = row
        cells = "".join(f"{row[column]:12.2f}" for column, _, _ in columns)
        print(f"{name:44}{cells}{row['bytes']:13.0f}{row['bytes with trace']:10.0f}", flush=True)
    far, near = k100, 2_000
    per_waiting = {
        kind: round((waiting(far, make) - waiting(near, make)) / (far - near), 1)
        for kind, make in (("plain", flat), ("coroutine", coroutines))
    }
    traced = "3 + trace"
    names = list(table)
    deep = "100 trees of depth 20, nested sub-budgets"
    goals = {
        "us per request, 3 limits, trace in memory": (max(r[traced] for m, r in table.items() if m != deep), 15),
        "us per request at depth 20 of nested sub-budgets": (table[deep][traced], 40),
        "100k against 1k, plain requests": (round(table[names[2]][traced] / table[names[0]][traced], 2), 1.2),
        "100k against 1k, a coroutine each": (round(table[names[5]][traced] / table[names[3]][traced], 2), 1.2),
        "bytes per waiting request beyond the window": (max(per_waiting.values()), 200),
    }
    print()
    for goal, (value, limit) in goals.items():
        print(f"{goal:52}{value:9.2f}   goal {limit:>5}   {'met' if value <= limit else 'MISSED'}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    result = {
        "commit": commit.stdout.strip(), "python": platform.python_version(), "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(), "seed": SEED, "repeats": repeats, "quick": given.quick,
        "gc_threshold": gc.get_threshold(), "load": os.getloadavg()[0],
        "us_per_request": table, "bytes_per_waiting_request": per_waiting,
        "goals": {goal: {"value": v, "goal": limit, "met": v <= limit} for goal, (v, limit) in goals.items()},
    }  # fmt: skip
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {output}")


if __name__ == "__main__":
    main()
