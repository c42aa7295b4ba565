"""What `solve` returns: the answer, and everything that it took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.run import Run
from outthink.experiments import breakdown, totals, view


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """One solved prompt.

    answer: canonical, None if there was none. text: the chosen completion whole. value: its score if it was scored.
    stopped: "finished", "budget", "deadline", "cancelled" or "no answer". run: the Run behind it, with its trace.
    """

    prompt: str
    answer: str | None
    text: str | None
    value: float | None
    stopped: str
    cost: Cost
    seconds: float
    seed: int
    method: str
    model: str
    budget: Budget
    run: Run

    @property
    def discarded(self) -> int | None:
        """Output tokens that are not in the chosen completion; None if the trace does not tell."""
        used = breakdown.chosen_output(self._served(), text=self.text)
        return None if used is None else self.cost.total("output") - used

    def to_dict(self, *, trace: str | None = None) -> dict[str, Any]:
        """Return the JSON document of `outthink solve --json`; `trace` is the file that it was written to, if any."""
        roles = breakdown.by_role(self._served(), policy=self.model)
        return {
            "answer": self.answer, "text": self.text, "value": self.value, "stopped": self.stopped,
            "cost": {
                "total": totals.totals(self.cost, discarded=self.discarded),
                "by_model": totals.by_model(self.cost),
                "by_role": totals.by_role(roles),
            },
            "seconds": round(self.seconds, 4), "seed": self.seed, "method": self.method, "model": self.model,
            "budget": str(self.budget), "prompt": self.prompt, "exact": self.run.exact, "trace": trace,
        }  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def _served(self) -> list[Any]:
        return list(self.run.trace.served()) if self.run.trace is not None else []

    def _repr_html_(self) -> str:
        return view.html(self.run, policy=self.model, text=self.text)

    def __repr__(self) -> str:
        return (f"Result(answer={self.answer!r}, stopped={self.stopped!r}, {self.cost.tokens} tokens of {self.budget}, "
                f"{self.method}, {self.model})")  # fmt: skip
