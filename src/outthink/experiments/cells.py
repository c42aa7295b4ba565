"""One cell of a comparison: a problem, a method and a budget. Pure: what is asked, what came, the rows they give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from outthink.analysis.intervals import wilson
from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.experiments.totals import by_model, totals

Key = tuple[str, str, str]
"""Problem id, method, budget as printed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one problem gave to one method at one budget. `cost` is exact unless `exact` is false (upper end).

    seconds: its share of the wall clock: every moment is divided evenly among the cells then at work. pooled: it
    replayed recorded samples.
    """

    problem: str
    method: str
    budget: str
    answer: str | None
    correct: bool
    value: float | None
    stopped: str
    cost: Cost
    seconds: float
    exact: bool = True
    pooled: bool = False

    @property
    def key(self) -> Key:
        return (self.problem, self.method, self.budget)

    def to_json(self) -> dict[str, Any]:
        """Return the line of results.jsonl."""
        return {
            "problem": self.problem, "method": self.method, "budget": self.budget, "answer": self.answer,
            "correct": self.correct, "value": self.value, "stopped": self.stopped, "cost": self.cost.nonzero(),
            "seconds": self.seconds, "exact": self.exact, "pooled": self.pooled,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cell:
        """Return the cell that `to_json` wrote. Raises KeyError or TypeError if the line is something else."""
        return cls(**{**data, "cost": Cost(data["cost"])})


def grid(problems: Iterable[str], methods: Sequence[str], budgets: Sequence[Budget],
         *, done: Collection[Key] = ()) -> list[Key]:  # fmt: skip
    """Return the keys still to do: budgets outermost, so that an interrupted comparison has whole small budgets."""
    names = list(problems)
    keys = [(p, m, str(b)) for b in budgets for m in methods for p in names]
    return [key for key in keys if key not in done]


def rows(
    cells: Iterable[Cell], *, task: str, model: str, methods: Sequence[str], budgets: Sequence[Budget]
) -> list[dict[str, Any]]:
    """Return one row per method and budget that has cells, in the order given.

    accuracy: right answers over n (no answer is wrong), with Wilson's 95% interval as low and high. cost: sums over the
    n problems, `most_tokens` the most that one problem took. seconds: the row's share of the wall clock.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.budget), []).append(cell)
    out = []
    for method in methods:
        for budget in budgets:
            group = groups.get((method, str(budget)))
            if group:
                right = sum(cell.correct for cell in group)
                interval = wilson(right, len(group))
                out.append({
                    "task": task, "model": model, "method": method, "budget": str(budget), "n": len(group),
                    "accuracy": interval.value, "low": min(interval.low, interval.value),
                    "high": max(interval.high, interval.value), "cost": _costs(group),
                    "seconds": round(fsum(cell.seconds for cell in group), 3),
                })  # fmt: skip
    return out


def _costs(group: Sequence[Cell]) -> dict[str, Any]:
    cost = Cost.sum(cell.cost for cell in group)
    return {
        "total": totals(cost),
        "by_model": by_model(cost),
        "tokens_per_problem": round(cost.tokens / len(group), 2),
        "most_tokens": max(cell.cost.tokens for cell in group),
        "unanswered": sum(cell.answer is None for cell in group),
        "exact": all(cell.exact for cell in group),
        "pooled": any(cell.pooled for cell in group),
    }
