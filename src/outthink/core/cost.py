"""What was spent: integer counters that add, over (model, unit), and the gauges that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Counts = dict[str, dict[str, int]]

UNITS: Mapping[str, str] = {
    "calls": "requests served",
    "prompt": "prompt tokens sent beyond what the backend had promised to hold",
    "cached": "prompt tokens that a shared cache happened to have; recorded, never decides admission",
    "output": "tokens generated",
    "attended": "sum of context lengths over the computed positions, so that attention FLOPs are linear",
    "recomputed": "positions that a backend computed again because it let go of what it had promised to hold",
    "images": "images read or drawn",
    "predictions": "denoiser predictions",
    "scores": "texts or states scored",
    "tools": "tool and environment calls",
    "kv_steps": "cache pages held, summed over steps",
    "trained": "tokens trained on",
    "device_ns": "device time, nanoseconds",
}
"""The units in use. The set is open: a backend may count others, and says in its documentation what they are."""


class Cost:
    """Exact, immutable counts. One request touches one model; a run is the sum of its requests."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self.counts: Mapping[str, Mapping[str, int]] = counts or {}

    @classmethod
    def of(cls, model: str, **units: int) -> Cost:
        """Return the cost of one request: `Cost.of("m", calls=1, prompt=12, output=30)`."""
        cost = cls.__new__(cls)
        cost.counts = {model: units}
        return cost

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        """Return the sum; of nothing it is the empty cost."""
        tally = Tally()
        for cost in costs:
            tally.add(cost)
        return tally.cost()

    def total(self, unit: str) -> int:
        """Return the count of `unit` over all models, 0 if there is none."""
        return sum(units.get(unit, 0) for units in self.counts.values())

    @property
    def tokens(self) -> int:
        """Prompt plus output tokens, over all models."""
        return self.total("prompt") + self.total("output")

    def __add__(self, other: Cost) -> Cost:
        return Cost.sum((self, other))

    def __mul__(self, times: int) -> Cost:
        return Cost({m: {u: n * times for u, n in units.items()} for m, units in self.counts.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and self.nonzero() == other.nonzero()

    def __hash__(self) -> int:
        return hash(frozenset((m, u, n) for m, units in self.nonzero().items() for u, n in units.items()))

    def __bool__(self) -> bool:
        return bool(self.nonzero())

    def nonzero(self) -> Counts:
        """Return the counts as plain dictionaries without zeros, models and units sorted: the JSON form."""
        out: Counts = {}
        for model in sorted(self.counts):
            units = {u: n for u, n in sorted(self.counts[model].items()) if n}
            if units:
                out[model] = units
        return out

    def __repr__(self) -> str:
        rows = (f"{m}: " + " ".join(f"{n} {u}" for u, n in units.items()) for m, units in self.nonzero().items())
        return f"Cost({'; '.join(rows)})"


class Tally:
    """A running sum of costs."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: Counts = {}

    def add(self, cost: Cost) -> None:
        for model, units in cost.counts.items():
            mine = self.counts.get(model)
            if mine is None:
                self.counts[model] = dict(units)
            else:
                for unit, n in units.items():
                    mine[unit] = mine.get(unit, 0) + n

    def cost(self) -> Cost:
        """Return the sum so far, frozen."""
        return Cost({model: dict(units) for model, units in self.counts.items()})


@dataclass(frozen=True, slots=True)
class Gauges:
    """What does not add.

    depth: the longest chain of awaited requests. kv_peak: the most bytes of keys and values that one backend held for
    the run at one moment (0: no backend said). seconds: a clock.
    """

    depth: int = 0
    kv_peak: int = 0
    seconds: float = 0.0
