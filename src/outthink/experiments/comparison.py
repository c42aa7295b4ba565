"""What `compare` returns, and how far it is while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outthink.core.budget import Budget
from outthink.experiments import curves, plot, report
from outthink.experiments.cells import Cell, rows
from outthink.experiments.folder import Folder


@dataclass(slots=True)
class Comparison:
    """Cells that are done, and the rows that they give.

    failed: messages of cells whose model failed (they have no Cell). interrupted: it was ended early.
    files: what was written, by name ("rows", "results", "plot", "report").
    """

    task: str
    model: str
    methods: tuple[str, ...]
    budgets: tuple[Budget, ...]
    cells: list[Cell]
    command: str
    versions: Mapping[str, str]
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per method and budget: accuracy with its interval, cost, seconds."""
        return rows(self.cells, task=self.task, model=self.model, methods=self.methods, budgets=self.budgets)

    @property
    def title(self) -> str:
        return (
            f"{self.task}: {', '.join(self.methods)}"
            if len(self.methods) < 4
            else f"{self.task}: {len(self.methods)} methods"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `outthink compare --json`."""
        return {"rows": self.rows, "command": self.command, "versions": dict(self.versions)}

    def to_html(self) -> str:
        """Return the report: one page that opens offline."""
        return report.report(self.rows, command=self.command, versions=self.versions, title=self.title)

    def write(self, folder: Folder) -> None:
        """Write rows.json, report.html and, if matplotlib is there, plot.png."""
        self.files["rows"] = folder.write("rows.json", json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        self.files["results"] = folder.path / "results.jsonl"
        self.files["report"] = folder.write("report.html", self.to_html())
        if plot.available() and self.cells:
            self.files["plot"] = plot.plot(
                curves.curves(self.rows), folder.path / "plot.png", title=f"{self.task}, {self.model}"
            )

    def _repr_html_(self) -> str:
        body = report.chart(curves.curves(self.rows)) + report.table(self.rows)
        return f"<div>{body}</div>"

    def __repr__(self) -> str:
        best = max(self.rows, key=lambda row: row["accuracy"], default=None)
        what = f", best {best['method']} {best['accuracy']:.1%} at {best['budget']}" if best else ""
        return f"Comparison({self.task!r}, {len(self.cells)} cells{what})"


class Progress:
    """How far a comparison is; handed to `watch` after every cell. Times are of this sitting."""

    def __init__(self, comparison: Comparison, *, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.comparison, self.total, self._clock = comparison, total, clock
        self.before, self._began = len(comparison.cells), clock()

    @property
    def done(self) -> int:
        return len(self.comparison.cells) + len(self.comparison.failed)

    @property
    def tokens(self) -> int:
        """Tokens of the cells done in this sitting."""
        return sum(cell.cost.tokens for cell in self.comparison.cells[self.before :])

    @property
    def rate(self) -> float:
        """Tokens per second of this sitting."""
        return self.tokens / max(self._clock() - self._began, 1e-9)

    @property
    def accuracy(self) -> tuple[Cell, float] | None:
        """The latest cell, and the accuracy so far of its method at its budget."""
        if not self.comparison.cells:
            return None
        last = self.comparison.cells[-1]
        same = [c.correct for c in self.comparison.cells if (c.method, c.budget) == (last.method, last.budget)]
        return last, sum(same) / len(same)
