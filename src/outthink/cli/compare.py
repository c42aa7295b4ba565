"""outthink compare"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from outthink.cli.errors import FAILURE, INTERRUPTED, paragraph
from outthink.cli.options import given, model_options, names, price_cards


@click.command(short_help="Compare methods on a task at equal budgets.")
@click.argument("task")
@click.option("--methods", required=True, metavar="A,B", help="Names, separated by commas; see `outthink papers`.")
@click.option(
    "--budgets",
    required=True,
    metavar="256,1k,4k",
    help='Of one problem; a number alone means tokens. Separate by ";" what has commas: "$1, 30 s; 1k".',
)
@click.option("--limit", type=click.IntRange(min=1), help="At most this many problems, from the start [default: all].")
@click.option("-o", "out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder that keeps every finished cell; also rows, plot and report.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with what -o DIR already holds.")
@model_options
def compare(task: str, methods: str, budgets: str, limit: int | None, out: Path | None, resume: bool, model: str,
            base_url: str | None, verifier: str | None, cards: Path | None, max_tokens: int | None,
            temperature: float | None, replicas: int | None, kv_bytes: int | None, dtype: str | None, seed: int,
            as_json: bool) -> int:  # fmt: skip
    """Compare methods on TASK at equal budgets, every problem with a budget of its own.

    TASK is word_problems, countdown or a JSONL file of {"id", "prompt", "answer"}. Ctrl-C keeps what is done in -o DIR,
    and the same command with --resume goes on.
    """
    from outthink.cli.live import comparing
    from outthink.experiments.compare import compare as run_compare

    if resume and out is None:
        raise click.UsageError("--resume goes on with a folder: name it with -o DIR")
    split = ";" if ";" in budgets else ","
    with comparing() as watch:
        comparison = run_compare(
            task, methods=names(methods, "--methods"), budgets=names(budgets, "--budgets", separator=split),
            model=model, verifier=verifier, limit=limit, base_url=base_url, cards=price_cards(cards), out=out,
            resume=resume, command=command(sys.argv[1:]), watch=watch, seed=seed,
            **given(
                max_tokens=max_tokens, temperature=temperature, replicas=replicas, kv_bytes=kv_bytes, dtype=dtype
            ),
        )  # fmt: skip
    return finish(comparison, as_json=as_json, out=out)


def command(arguments: list[str]) -> str:
    """Return the command line as it can be pasted again; --resume is left out, as it only goes on."""
    return shlex.join(["outthink", *(word for word in arguments if word != "--resume")])


def finish(comparison: Any, *, as_json: bool, out: Path | None) -> int:
    """Print a comparison and say what was written and what went wrong; return the exit code."""
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), ensure_ascii=False))
    else:
        from outthink.cli.tables import print_rows

        print_rows(comparison.rows, f"{comparison.model} on {comparison.task}")
    if out is not None and sys.stderr.isatty():
        click.secho("written: " + ", ".join(str(path) for path in comparison.files.values()), dim=True, err=True)
    if out is not None and comparison.cells and "plot" not in comparison.files:
        click.echo(
            "no plot.png: pip install 'outthink[analysis]' brings matplotlib; report.html has the plot too", err=True
        )
    if comparison.interrupted:
        kept = (
            f"what is done is kept in {out}; the same command with --resume goes on"
            if out is not None
            else "nothing was kept, as there is no -o DIR"
        )
        paragraph(f"interrupted after {len(comparison.cells)} cells: {kept}")
        return INTERRUPTED
    if comparison.failed:
        again = (
            f"What is done is kept in {out}; the same command with --resume tries them again."
            if out is not None
            else ""
        )
        paragraph(
            f"{len(comparison.failed)} cells failed and have no result. The first: {comparison.failed[0]}. {again}"
        )
        return FAILURE
    return 0
