"""Fill the table of results in README.md from a comparison that was run.

    python benchmarks/readme_table.py outputs/demo      take the rows of that folder, keep them, write the table
    python benchmarks/readme_table.py                   write the table again from the rows that were kept

The rows are kept in benchmarks/results/demo.json with the command, the versions, the commit and the machine, so that
every number in the table can be traced to the run that made it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results" / "demo.json"
README = ROOT / "README.md"
PENDING = "*Not measured yet: `make results` runs the demo and writes the table here.*"
START, END = "<!-- results:start -->", "<!-- results:end -->"


def keep(folder: Path) -> None:
    """Store rows.json of `folder` in benchmarks/results, with the commit and the machine it was run on."""
    data = json.loads((folder / "rows.json").read_text("utf-8"))
    data["commit"] = _git("describe", "--always", "--dirty")
    data["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")


def render(data: Mapping[str, Any]) -> str:
    """Return the table as Markdown: a line per method, a column per budget, accuracy with its interval in per cent.

    A method that was not run at a budget has a dash. The best of each column is bold; ties are all bold.
    """
    rows = data["rows"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    cells = {(row["method"], row["budget"]): row for row in rows}
    best = {budget: max(row["accuracy"] for row in rows if row["budget"] == budget) for budget in budgets}
    lines = ["| method | " + " | ".join(budgets) + " |", "|---|" + "---|" * len(budgets)]
    for method in methods:
        line = [_cell(cells.get((method, budget)), best[budget]) for budget in budgets]
        lines.append(f"| {method} | " + " | ".join(line) + " |")
    return "\n".join([*lines, "", _caption(data)])


def _cell(row: Mapping[str, Any] | None, best: float) -> str:
    if row is None:
        return "–"
    mark = "**" if row["accuracy"] == best else ""
    return f"{mark}{100 * row['accuracy']:.0f}{mark} ({100 * row['low']:.0f}–{100 * row['high']:.0f})"


def _caption(data: Mapping[str, Any]) -> str:
    rows = data["rows"]
    problems = " to ".join(str(n) for n in sorted({row["n"] for row in rows}))
    most = max((row["cost"].get("most_tokens", 0), row["budget"]) for row in rows)
    pooled = sorted({row["method"] for row in rows if row["cost"].get("pooled")})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(data["versions"].items()))
    text = (
        f"Accuracy in per cent (95 % interval) on {problems} held-out problems of `{rows[0]['task']}`, model "
        f"`{rows[0]['model']}`; every problem has the budget of its column, prompt and output tokens of all models "
        f"together. The most that one problem took: {most[0]} tokens of {most[1]}."
    )
    if pooled:
        text += f" Replayed from one recorded pool of samples: {', '.join(pooled)}."
    return (
        f"{text}\n\nMade by `{data['command']}` ({versions}; commit {data['commit']}; {data['machine']}) and "
        "`make results`."
    )


def block(data: Mapping[str, Any] | None) -> str:
    """Return what stands in README.md between the two marks, marks included; without data it says so."""
    return f"{START}\n{PENDING if data is None else render(data)}\n{END}"


def fill(text: str, data: Mapping[str, Any]) -> str:
    """Return `text` with the block between the marks replaced. Raises ValueError if a mark is missing."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return before + block(data) + after


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    README.write_text(fill(README.read_text("utf-8"), json.loads(KEPT.read_text("utf-8"))), "utf-8")
