"""Tables of a comparison for the terminal; plain text of the same columns where stdout is not one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from outthink.experiments.report import best_of, in_budget_order, remarks


def console() -> Console:
    """Return a console on stdout; wide enough for every table where nobody looks at the width."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def details(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per row: accuracy with interval, tokens per problem, the most that one problem took, seconds."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("budget", "method", "accuracy", "95% interval", "n", "tokens/problem", "most", "seconds"):
        table.add_column(name, justify="left" if name in ("budget", "method") else "right", no_wrap=True)
    best, before = best_of(rows), None
    for row in in_budget_order(rows):
        cost = row["cost"]
        accuracy = f"{row['accuracy']:.1%}"
        table.add_row(
            row["budget"] if row["budget"] != before else "", row["method"],
            f"[bold green]{accuracy}[/]" if row["accuracy"] == best[row["budget"]] else accuracy,
            f"{row['low']:.1%} to {row['high']:.1%}", str(row["n"]), f"{cost['tokens_per_problem']:,.1f}",
            f"{cost['most_tokens']:,}", f"{row['seconds']:.2f}",
        )  # fmt: skip
        before = row["budget"]
    return table


def matrix(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return accuracy by method and budget: the whole comparison at a glance."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    best = best_of(rows)
    cells = {(row["method"], row["budget"]): row["accuracy"] for row in rows}
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("accuracy at", no_wrap=True)
    for budget in budgets:
        table.add_column(budget.removesuffix(" tokens"), justify="right", no_wrap=True)
    for method in methods:
        line = []
        for budget in budgets:
            accuracy = cells.get((method, budget))
            text = f"{accuracy:.1%}" if accuracy is not None else ""
            line.append(f"[bold green]{text}[/]" if accuracy == best[budget] else text)
        table.add_row(method, *line)
    return table


def print_rows(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print a comparison: the table, the overview if there is more than one budget, and what a reader must know."""
    out = console()
    if not rows:
        out.print("nothing has finished")
        return
    out.print(f"[bold]{title}[/]")
    out.print(details(rows))
    if len({row["budget"] for row in rows}) > 1:
        out.print()
        out.print(matrix(rows))
    for remark in remarks(rows):
        out.print(remark, style="dim")
