"""outthink papers"""

from __future__ import annotations

import json
from typing import Any

import click


@click.command(short_help="List the methods, or say everything about one.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def papers(name: str | None, as_json: bool) -> None:
    """List the methods and published systems, or print the card of NAME."""
    from outthink.papers import NAMES, load

    entries = [load(name)] if name is not None else [load(entry) for entry in NAMES]
    if as_json:
        click.echo(json.dumps({"papers": [_row(entry) for entry in entries]}, ensure_ascii=False))
    elif name is not None:
        click.echo(str(entries[0].card).strip())
        click.echo(f"\nFamily: {entries[0].family}   Needs: {_needs(entries[0])}   Claim: {entries[0].status}")
    else:
        _table(entries)


def _row(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "family": entry.family, "title": entry.title, "needs": sorted(entry.needs),
            "claim": entry.claim, "status": entry.status}  # fmt: skip


def _needs(entry: Any) -> str:
    return ", ".join(sorted(entry.needs)) or "nothing but sampling"


def _table(entries: list[Any]) -> None:
    from rich.table import Table

    from outthink.cli.tables import console

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("family", "name", "title", "needs", "claim"):
        table.add_column(column, no_wrap=column in ("family", "name"))
    before = None
    for entry in entries:
        table.add_row(entry.family if entry.family != before else "", f"[bold]{entry.name}[/]", entry.title,
                      ", ".join(sorted(entry.needs)), entry.status)  # fmt: skip
        before = entry.family
    out = console()
    out.print(table)
    out.print("outthink papers NAME says what it does, spends and claims", style="dim")
