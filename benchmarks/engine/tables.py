"""The tables in docs/engine.md, written from the results in benchmarks/results/engine.

    python benchmarks/engine/tables.py [--check]

Tables stand between two marks in the page; nothing else of it is touched.  A measurement that was not made has no
table, an engine that was missing has its reason, and a goal that was missed says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from machine import RESULTS, ROOT

PAGE = ROOT / "docs" / "engine.md"
START, END = "<!-- engine-results:start -->", "<!-- engine-results:end -->"
Record = dict[str, Any]
TYPES = {"float32": "fp32", "bfloat16": "bf16"}


def table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    names = list(head)
    rows = ["| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines]
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *rows])


def number(value: float | None) -> str:
    """Return three digits of what is small and all of what is large; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def many_samples(record: Record) -> str:
    lines = []
    for row in record["rows"]:
        if "engine" not in row:
            continue
        name = [row["shape"], TYPES[row["dtype"]], row["engine"]]
        if "missing" in row:
            lines.append([*name, f"missing: {row['missing'][:60]}", *["–"] * 5])
            continue
        over = row.get("ours over it", {})
        own = row["engine"] == "ours"
        mark = "" if row["steps_timed"] == row["tokens"] else "*"
        lines.append([
            *name, number(row["overall"]) + mark, number(row["decode"]),
            "" if own else f"{over['overall']:.2f}x" if over else "–",
            "" if own else f"{over['decode']:.2f}x" if over else "–",
            percent(row.get(f"share of peak, {row['samples']} rows")), percent(row.get("share of peak, 512 rows")),
        ])  # fmt: skip
    head = ("model", "type", "engine", "tokens/s over all", "decoding", "ours over it", "decoding",
            "of the product peak, 64 rows", "512 rows")  # fmt: skip
    note = "\\* decoding timed for fewer steps and multiplied; a missing engine counts for nothing."
    return f"64 samples of one prompt, the same lengths in every engine.\n\n{table(head, lines)}\n\n{note}"


def search(record: Record) -> str:
    lines = []
    for row in record["rows"]:
        name = [row["search"], row["shape"], TYPES[row["dtype"]], row["engine"]]
        if "missing" in row:
            lines.append([*name, f"missing: {row['missing'][:60]}", *["–"] * 3])
        else:
            over = row.get("ours over it")
            times = "" if row["engine"] == "ours" else "–" if over is None else f"{over:.2f}x"
            share = f"{row['computed over unique']:.3f}"
            lines.append([*name, number(row["seconds"]), number(row["computed"]), share, times])
    head = ("search", "model", "type", "engine", "seconds", "tokens computed", "over unique tokens", "ours over it")
    return f"The same tree of {record['step']}-token steps in every engine.\n\n{table(head, lines)}"


def early_stop(record: Record) -> str:
    good = [row for row in record["rows"] if "missing" not in row]
    lines = [
        [row["shape"], "yes" if row["abort"] else "no", number(row["generated"] / row["problems"]),
         number(row["drawn after the decision"] / row["problems"]), percent(row["discarded share"]),
         number(1000 * row["seconds"] / row["problems"])]
        for row in good
    ]  # fmt: skip
    head = ("model", "abort", "tokens drawn", "after the decision", "discarded", "milliseconds")
    return f"32 samples until the first accepted one, for each problem.\n\n{table(head, lines)}"


def single_stream(record: Record) -> str:
    lines = []
    for row in record["rows"]:
        if "engine" in row and "missing" not in row:
            over = row.get("ours over it")
            lines.append([
                row["shape"], TYPES[row["dtype"]], row["engine"], number(row["decode"]), number(row["milliseconds"]),
                number(row["limit_milliseconds"]), percent(row["share of bandwidth"]),
                percent(row["share of copy bandwidth"]), "" if over is None else f"{over:.2f}x",
            ])  # fmt: skip
        elif "engine" in row:
            lines.append([row["shape"], TYPES[row["dtype"]], row["engine"], "missing", *["–"] * 5])
    head = ("model", "type", "engine", "tokens/s", "ms a token", "limit: reading", "of read bandwidth",
            "of copy bandwidth", "ours over it")  # fmt: skip
    note = "Above 100 %: the weights stay in the processor's cache."
    return f"One stream, one token at a time.\n\n{table(head, lines)}\n\n{note}"


def growth(record: Record) -> str:
    sizes, lines = {"batch": "samples", "prefix": "prompt", "depth": "depth"}, []
    for row in record["rows"]:
        name = [row["shape"], TYPES[row["dtype"]], row["grows"], row[sizes[row["grows"]]]]
        if "missing" in row:
            lines.append([*name, f"missing: {row['missing'][:60]}", *["–"] * 4])
            continue
        held, wanted = number(row["engine_bytes"] / 2**20), number(row["needed_bytes"] / 2**20)
        rates = number(row["decode"]), number(row["prompt_tokens_per_second"])
        lines.append([*name, *rates, held, wanted, f"{row['memory over needed']:.2f}"])
    head = ("model", "type", "grows", "to", "decoding, tokens/s", "reading, tokens/s", "peak MiB",
            "weights and pages MiB", "ratio")  # fmt: skip
    return f"Growth: batch at a prefix of 1,024, prefix and depth at a batch of 64.\n\n{table(head, lines)}"


def speculative(record: Record) -> str:
    lines = [
        [row["pair"], row["batch"], row["lookahead"] or "none", percent(row.get("acceptance")),
         number(row.get("tokens_a_step")), number(row["per_second"]), f"{row['over_plain']:.2f}x"]
        for row in record["rows"]
    ]  # fmt: skip
    head = ("models", "rows", "lookahead", "accepted", "tokens a step", "tokens/s", "over no draft")
    note = "reasoner: the embedded one, drafted by reasoner-small. strangers: random 110M, drafted by a random 15M. "
    note += "agreeing: random 110M made so that its first two layers, its draft, are nearly always right."
    return f"A draft model beside the engine, of the same prompts and lengths.\n\n{table(head, lines)}\n\n{note}"


def goals(records: dict[str, Record]) -> str:
    """Return the goals as lines: what was measured, what was wanted, met or missed; nothing if none was measured."""
    rows = [row for row in records.get("many_samples", {}).get("rows", []) if "overall" in row]
    lines: list[tuple[str, float, float, bool]] = []

    def add(name: str, value: float, wanted: float, *, most: bool = False) -> None:
        lines.append((name, value, wanted, value <= wanted if most else value >= wanted))

    ours = {(row["shape"], row["dtype"]): row for row in rows if row["engine"] == "ours"}
    for row in rows:
        label = f"{row['shape']} {TYPES[row['dtype']]}"
        if row["engine"] in ("transformers", "llama.cpp") and "ours over it" in row:
            wanted = {"transformers": 20.0, "llama.cpp": 1.2}[row["engine"]]
            add(f"64 samples over all, over {row['engine']}, {label}", row["ours over it"]["overall"], wanted)
        share = row.get(f"share of peak, {row['samples']} rows")
        if row["engine"] == "ours" and share is not None:
            add(f"share of the product peak in decoding, {label}", share, 0.6)
            add(f"prompt tokens computed over the prompt, {label}", row["prompt_tokens_computed"] / row["prompt"], 1.0,
                most=True)  # fmt: skip
    for shape, dtype in ours:
        if dtype == "bfloat16" and (shape, "float32") in ours:
            ratio = ours[shape, dtype]["overall"] / ours[shape, "float32"]["overall"]
            add(f"bf16 over fp32, {shape}", ratio, 2.0)
    for row in records.get("search", {}).get("rows", []):
        label = f"{row['search']}, {row['shape']} {TYPES[row['dtype']]}"
        if row["engine"] == "transformers" and "ours over it" in row:
            add(f"over reading every text again, {label}", row["ours over it"], 5.0)
        if row["engine"] == "ours" and "computed over unique" in row:
            add(f"tokens computed over unique tokens, {label}", row["computed over unique"], 1.0, most=True)
    for row in records.get("single_stream", {}).get("rows", []):
        if "ours over it" in row:
            label = f"{row['shape']} {TYPES[row['dtype']]}"
            add(f"single stream over llama.cpp, {label}", row["ours over it"], 0.9)
    ratios = [row["memory over needed"] for row in records.get("growth", {}).get("rows", []) if "decode" in row]
    if ratios:
        add("memory over weights and pages in use, the most of all sizes", max(ratios), 1.2, most=True)
    body = [[name, f"{value:.2f}", f"{wanted:g}", "met" if met else "**missed**"] for name, value, wanted, met in lines]
    return table(("goal", "measured", "wanted", ""), body) if body else ""


TABLES: dict[str, Callable[[Record], str]] = {
    "many_samples": many_samples, "search": search, "early_stop": early_stop, "single_stream": single_stream,
    "growth": growth, "speculative": speculative,
}  # fmt: skip


def block() -> str:
    """Return what stands between the marks, from the results that there are."""
    paths = {name: RESULTS / f"{name}.json" for name in TABLES}
    records = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}
    if not records:
        return "*Not measured yet: `make engines` writes the tables here.*"
    parts = [part for part in (goals(records),) if part]
    for name, record in records.items():
        made = f"Made by `{record['command']}`, commit {record['commit']}, {record['machine']}, "
        made += f"{record['threads']} threads, load {record['load_average']:.1f}, seed {record['seed']}, "
        known = record["versions"] | record.get("peers", {})
        made += ", ".join(f"{package} {version}" for package, version in known.items()) + "."
        parts.append(f"{TABLES[name](record)}\n\n{made}")
    return "\n\n".join(parts)


def fill(text: str) -> str:
    """Return `text` with the block between the marks replaced. Raises ValueError if a mark is missing."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{block()}\n{END}{after}"


if __name__ == "__main__":
    old = PAGE.read_text("utf-8")
    new = fill(old)
    if "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE} is not what the results say; run this without --check" if new != old else 0)
    PAGE.write_text(new, "utf-8")
