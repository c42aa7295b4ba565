"""A comparison as one HTML file that opens offline: chart, table, costs, and the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from outthink.experiments.chart import chart
from outthink.experiments.curves import curves

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:920px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem} .quiet{color:#666}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #eee} th{color:#555;font-weight:600}
td:first-child,th:first-child{text-align:left} tr.first td{border-top:2px solid #ccc}
pre{background:#f6f6f6;padding:.7rem;overflow-x:auto;font-size:13px;white-space:pre-wrap}
svg{max-width:100%;height:auto}
.best{font-weight:700}
"""


def report(rows: Sequence[Mapping[str, Any]], *, command: str, versions: Mapping[str, str], title: str) -> str:
    """Return the whole page. Rows are those of rows.json; of no rows the page says so."""
    lines = curves(rows)
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="quiet">{escape(summary(rows))}</p>']
    parts += [chart(lines), table(rows), *(f'<p class="quiet">{escape(text)}</p>' for text in remarks(rows))]
    parts.append(f"<h2>Make it again</h2><pre>{escape(command)}</pre>")
    parts.append(f"<pre>{escape(', '.join(f'{name} {version}' for name, version in versions.items()))}</pre>")
    data = json.dumps(list(rows)).replace("<", "\\u003c")
    parts.append(f'<script type="application/json" id="rows">{data}</script>')
    return page(title, "\n".join(parts))


def page(title: str, body: str) -> str:
    """Return a page that needs nothing from anywhere else."""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n")  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the <table>: one line per row, the best accuracy of each budget in bold."""
    head = ("budget", "method", "accuracy", "95% interval", "tokens per problem", "most", "seconds")
    out = ["<table><tr>", *(f"<th>{name}</th>" for name in head), "</tr>"]
    best, before = best_of(rows), None
    for row in in_budget_order(rows):
        first = ' class="first"' if row["budget"] != before else ""
        bold = ' class="best"' if row["accuracy"] == best[row["budget"]] else ""
        cost = row["cost"]
        out.append(f"<tr{first}><td>{escape(row['budget'])}</td><td>{escape(row['method'])}</td>"
                   f"<td{bold}>{row['accuracy']:.1%}</td><td>{row['low']:.1%} to {row['high']:.1%}</td>"
                   f"<td>{cost['tokens_per_problem']:,.1f}</td><td>{cost['most_tokens']:,}</td>"
                   f"<td>{row['seconds']:.2f}</td></tr>")  # fmt: skip
        before = row["budget"]
    return "\n".join([*out, "</table>"])


def in_budget_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows grouped by budget, budgets and methods in order of first appearance."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    return [row for budget in budgets for row in rows if row["budget"] == budget]


def best_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the highest accuracy at each budget."""
    out: dict[str, float] = {}
    for row in rows:
        out[row["budget"]] = max(out.get(row["budget"], 0.0), row["accuracy"])
    return out


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one sentence: who was asked what, how often, and what came out best."""
    if not rows:
        return "Nothing has finished yet."
    best = max(rows, key=lambda row: row["accuracy"])
    sizes = [row["n"] for row in rows]
    n = " to ".join(map(str, sorted({min(sizes), max(sizes)})))
    return (f"{rows[0]['model']} on {rows[0]['task']}, {n} problems "
            f"a row. Best: {best['method']} with {best['accuracy']:.1%} at {best['budget']} a problem.")  # fmt: skip


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader must know to read the numbers right."""
    out = [
        "Tokens are prompt plus output of every model, the reward model's included; intervals are Wilson's, 95%. "
        "Seconds are a row's share of the wall clock: every moment is divided among what is then at work."
    ]
    pooled = list(dict.fromkeys(row["method"] for row in rows if row["cost"]["pooled"]))
    if pooled:
        out.append(
            f"{', '.join(pooled)} replayed samples recorded once for all of them: each is charged the tokens that its "
            "samples took when they were recorded, and its seconds are those of the replay."
        )
    if any(not row["cost"]["exact"] for row in rows):
        out.append("A server did not report its usage for some requests; those are charged at their upper bound.")
    unanswered = [row for row in rows if row["cost"]["unanswered"]]
    if unanswered:
        each = (f"{row['method']} at {row['budget']}: {row['cost']['unanswered']} of {row['n']}" for row in unanswered)
        out.append(f"Without an answer (counted as wrong): {', '.join(each)}.")
    return out
