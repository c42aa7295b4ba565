"""One run as HTML: answer, waterfall, tree and anytime curve; for notebooks and for files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from outthink.core.trace import Served
from outthink.experiments.search_tree import Node, search_tree, shown
from outthink.experiments.waterfall import Bar, waterfall

COLOURS = {
    "prompt": "#999",
    "chosen completion": "#009e73",
    "thrown away": "#d55e00",
    "verify": "#0072b2",
    "generated": "#e69f00",
}


def html(run: Any, *, policy: str, text: str | None) -> str:
    """Return a <div> of a Run (or of anything with its `answer`, `stopped`, `cost`, `budget`, `trace`)."""
    events = list(run.trace.served()) if run.trace is not None else []
    return view(events, answer=run.answer, text=text, stopped=run.stopped, policy=policy, budget=str(run.budget))


def view(events: Sequence[Served], *, answer: str | None, text: str | None, stopped: str | None, policy: str,
         budget: str) -> str:  # fmt: skip
    """Return the <div> of the events of a run."""
    bars = waterfall(events, policy=policy, text=text)
    total = sum(bar.tokens for bar in bars)
    head = (f"<p><b>{escape(answer if answer is not None else 'no answer')}</b> &nbsp; {escape(str(stopped))}, "
            f"{total:,} tokens, budget {escape(budget)}, {escape(policy)}</p>")  # fmt: skip
    body = f"<pre>{escape(text)}</pre>" if text else ""
    trees = "".join(_tree(root, 0) for root in search_tree(events, text=text))
    return (f'<div style="font:14px/1.45 system-ui,sans-serif">{head}{body}{_bars(bars, total)}'
            f"<details><summary>search tree</summary>{trees}</details></div>")  # fmt: skip


def _bars(bars: Sequence[Bar], total: int) -> str:
    rows = []
    for bar in bars:
        left, width = 100 * bar.before / max(total, 1), 100 * bar.tokens / max(total, 1)
        rows.append(f'<tr><td style="text-align:left;padding-right:1em">{escape(bar.name)}</td>'
                    f'<td style="text-align:right;padding-right:1em">{bar.tokens:,}</td><td style="width:420px">'
                    f'<div style="margin-left:{left:.2f}%;width:{width:.2f}%;min-width:2px;height:12px;'
                    f'background:{COLOURS.get(bar.name, "#cc79a7")}"></div></td></tr>')  # fmt: skip
    return f'<table style="border-collapse:collapse">{"".join(rows)}</table>' if rows else ""


def _tree(node: Node, depth: int, limit: int = 24) -> str:
    facts = [f"{node.tokens} tok" if node.tokens else "", f"×{node.times}" if node.times > 1 else "",
             f"{node.score:.3f}" if node.score is not None else ""]  # fmt: skip
    line = escape(node.text.strip() or "(empty)").replace("\n", "<br>")
    style = "color:#009e73;font-weight:600" if node.chosen and depth else ""
    label = f'<span style="{style}">{line}</span> <small style="color:#777">{" ".join(filter(None, facts))}</small>'
    children, hidden = shown(node, limit)
    if not children:
        return f'<div style="margin-left:1.2em">{label}</div>'
    inner = "".join(_tree(child, depth + 1) for child in children)
    more = f'<div style="margin-left:1.2em;color:#777">and {hidden} more</div>' if hidden else ""
    opened = " open" if node.chosen or not depth else ""
    return f'<details{opened} style="margin-left:1.2em"><summary>{label}</summary>{inner}{more}</details>'
