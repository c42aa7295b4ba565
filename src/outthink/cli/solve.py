"""outthink solve"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from outthink.cli.options import given, model_options, price_cards


@click.command(short_help="Answer one prompt within a budget.")
@click.argument("prompt")
@click.option("--method", metavar="NAME", help="See `outthink papers` [default: rebase, without a verifier majority].")
@click.option("--budget", "-b", default="2k tokens", show_default=True, metavar="TEXT",
              help='What may be spent: "2k tokens", "40 output tokens", "$0.05, 30 s", "100 calls".')  # fmt: skip
@click.option("-o", "out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder for result.json, trace.jsonl and view.html; `outthink show DIR` shows them.")  # fmt: skip
@model_options
def solve(prompt: str, method: str | None, budget: str, out: Path | None, model: str, base_url: str | None,
          verifier: str | None, cards: Path | None, max_tokens: int | None, temperature: float | None,
          replicas: int | None, kv_bytes: int | None, dtype: str | None, seed: int, as_json: bool) -> int:  # fmt: skip
    """Answer PROMPT within a budget; "-" reads it from standard input.

    Prints the answer (and at a terminal the completion and what it took). Without an answer the exit code is still 0:
    the JSON document says why in "stopped".
    """
    from outthink.cli.live import watching
    from outthink.experiments.solve import solve as run_solve

    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    with watching(budget) as watch:
        result = run_solve(
            text, method=method, model=model, budget=budget, verifier=verifier, base_url=base_url,
            cards=price_cards(cards), watch=watch, seed=seed,
            **given(
                max_tokens=max_tokens, temperature=temperature, replicas=replicas, kv_bytes=kv_bytes, dtype=dtype
            ),
        )  # fmt: skip
    trace = _write(result, out) if out is not None else None
    if as_json:
        click.echo(json.dumps(result.to_dict(trace=trace), ensure_ascii=False))
    else:
        _print(result, out)
    return 130 if result.stopped == "cancelled" else 0


def _write(result: Any, out: Path) -> str:
    """Write the folder; return the path of the trace."""
    from outthink.core.jsonl import write
    from outthink.experiments.report import page

    out.mkdir(parents=True, exist_ok=True)
    trace = out / "trace.jsonl"
    if result.run.trace is not None:
        write(result.run.trace, trace)
    document = json.dumps(result.to_dict(trace=str(trace)), ensure_ascii=False, indent=2)
    (out / "result.json").write_text(document + "\n", "utf-8")
    (out / "view.html").write_text(page("outthink solve", result._repr_html_()), "utf-8")
    return str(trace)


def _print(result: Any, out: Path | None) -> None:
    terminal = sys.stdout.isatty()
    if terminal and result.text:
        click.secho(result.text.strip("\n"), dim=True)
    if result.answer is not None:
        click.secho(result.answer, bold=True)
    discarded = result.discarded
    cost = result.cost
    thrown = f", {discarded:,} of them thrown away" if discarded else ""
    line = (f"{result.stopped}: {cost.tokens:,} tokens, budget {result.budget} ({cost.total('calls')} calls, "
            f"{cost.total('prompt'):,} prompt and {cost.total('output'):,} output tokens{thrown}), "
            f"{result.seconds:.2f} s, {result.method}, {result.model}")  # fmt: skip
    if result.answer is None:
        click.echo(f"no answer ({line})", err=True)
    elif terminal:
        click.secho(line, dim=True)
    if out is not None and sys.stderr.isatty():
        click.secho(f"outthink show {out}", dim=True, err=True)
