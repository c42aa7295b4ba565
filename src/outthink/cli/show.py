"""outthink show"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Show where the tokens of a finished run went.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--width", default=4, show_default=True, type=click.IntRange(min=1), help="Children shown of each node.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show(run: Path, width: int, as_json: bool) -> None:
    """Show RUN: the folder of `solve -o` or `compare -o`, or a trace file.

    Of a solved prompt: its tree and where every token went. Of a comparison: its table.
    """
    from outthink.core.errors import InvalidInput

    if (run / "results.jsonl").is_file():
        _comparison(run, as_json)
        return
    trace = run / "trace.jsonl" if run.is_dir() else run
    if not trace.is_file():
        raise InvalidInput(
            f"{run} holds no trace.jsonl and no results.jsonl; give what `solve -o` or `compare -o` wrote"
        )
    _run(trace, width, as_json)


def _comparison(folder: Path, as_json: bool) -> None:
    from outthink.core.budget import Budget
    from outthink.experiments.cells import rows
    from outthink.experiments.folder import read_folder

    header, cells = read_folder(folder)
    budgets = [Budget.parse(budget) for budget in header["budgets"]]
    table = rows(cells, task=header["task"], model=header["model"], methods=header["methods"], budgets=budgets)
    if as_json:
        command = header.get("command", "")
        click.echo(json.dumps({"rows": table, "command": command, "versions": header["versions"]}, ensure_ascii=False))
        return
    from outthink.cli.tables import print_rows

    print_rows(table, f"{header['model']} on {header['task']}, {len(cells)} cells")


def _run(file: Path, width: int, as_json: bool) -> None:
    from outthink.core.jsonl import read
    from outthink.experiments.search_tree import search_tree
    from outthink.experiments.waterfall import waterfall

    trace = read(file)
    text = _chosen_text(file)
    events = list(trace.served())
    policy = str(trace.header.get("model", ""))
    bars = waterfall(events, policy=policy, text=text)
    roots = search_tree(events, text=text)
    if as_json:
        document = {
            "header": dict(trace.header), "cost": trace.cost.nonzero(),
            "waterfall": [{"name": bar.name, "tokens": bar.tokens} for bar in bars],
            "tree": [_node(root) for root in roots],
        }  # fmt: skip
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    from outthink.cli.trees import print_run

    print_run(trace, bars, roots, width)


def _chosen_text(trace: Path) -> str | None:
    """The chosen completion is in result.json, beside the trace; a trace alone does not say it."""
    try:
        text = json.loads((trace.parent / "result.json").read_text("utf-8")).get("text")
    except (OSError, ValueError, AttributeError):
        return None
    return text if isinstance(text, str) else None


def _node(root: Any) -> dict[str, Any]:
    """Return the tree as JSON; built from the leaves up, as a deep tree must not exhaust the stack."""
    made: dict[int, dict[str, Any]] = {}
    for node in reversed(list(root.walk())):
        made[id(node)] = {
            "text": node.text, "tokens": node.tokens, "times": node.times, "score": node.score, "chosen": node.chosen,
            "children": [made[id(child)] for child in node.children],
        }  # fmt: skip
    return made[id(root)]
