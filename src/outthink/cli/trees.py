"""The tree and the waterfall of a run, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from outthink.cli.tables import console
from outthink.core.trace import Trace
from outthink.experiments.search_tree import Node, shown
from outthink.experiments.waterfall import Bar

WIDTH = 40
COLOURS = {
    "prompt": "white",
    "chosen completion": "green",
    "thrown away": "red",
    "verify": "blue",
    "generated": "yellow",
}


def print_run(trace: Trace, bars: Sequence[Bar], roots: Sequence[Node], width: int) -> None:
    """Print the header, the tree (at most `width` children of each node) and where the tokens went."""
    out = console()
    head = trace.header
    end = next(iter(trace.decisions("end")), None)
    stopped = end.facts.get("stopped") if end is not None else "not ended"
    out.print(f"[bold]{escape(str(head.get('method', '')))}[/] {escape(str(head.get('model', '')))}, budget "
              f"{escape(str(head.get('budget', '')))}, {stopped}")  # fmt: skip
    for root in roots:
        tree = Tree(_label(root))
        _grow(tree, root, width)
        out.print(tree)
    if not roots:
        out.print(f"no tree: the trace has level {trace.level!r}, without requests and replies", style="dim")
    out.print(_waterfall(bars))


def _grow(tree: Tree, root: Node, width: int) -> None:
    stack = [(tree, root)]
    while stack:
        branch, node = stack.pop()
        children, hidden = shown(node, width)
        for child in children:
            stack.append((branch.add(_label(child)), child))
        if hidden:
            branch.add(f"[dim]and {hidden} more[/]")


def _label(node: Node) -> str:
    text = " | ".join(line for line in node.text.strip().splitlines() if line.strip()) or "(empty)"
    text = escape(text if len(text) <= 100 else text[:97] + "...")
    facts = [f"{node.tokens} tokens" if node.tokens else "", f"drawn {node.times} times" if node.times > 1 else "",
             f"score {node.score:.3f}" if node.score is not None else ""]  # fmt: skip
    tail = " ".join(fact for fact in facts if fact)
    return f"[bold green]✓ {text}[/] [dim]{tail}[/]" if node.chosen else f"{text} [dim]{tail}[/]"


def _waterfall(bars: Sequence[Bar]) -> Table:
    total = max(sum(bar.tokens for bar in bars), 1)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for bar in bars:
        start = round(WIDTH * bar.before / total)
        length = max(round(WIDTH * (bar.before + bar.tokens) / total) - start, 1)
        table.add_row(
            bar.name, f"{bar.tokens:,}", " " * start + f"[{COLOURS.get(bar.name, 'magenta')}]{'█' * length}[/]"
        )
    table.add_row("[bold]total[/]", f"[bold]{sum(bar.tokens for bar in bars):,}[/]", "")
    return table
