"""Views of a cost for people and for JSON: totals with spelled-out names, and whose work it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outthink.core.cost import Cost

NAMES = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "output": "output_tokens",
    "recomputed": "recomputed_tokens",
}
ALWAYS = ("calls", "prompt", "cached", "output")


def totals(cost: Cost, *, discarded: int | None = None) -> dict[str, int]:
    """Return the sums over all models under their JSON names; calls and tokens are there even when zero.

    discarded: the part of the output that is not in the chosen completion, if known.
    """
    units = dict.fromkeys((*ALWAYS, *sorted({u for counts in cost.nonzero().values() for u in counts})))
    out = {NAMES.get(unit, unit): cost.total(unit) for unit in units}
    if discarded is not None:
        out["discarded_tokens"] = discarded
    out["tokens"] = cost.tokens
    return out


def by_model(cost: Cost) -> dict[str, dict[str, int]]:
    """Return the nonzero counts of each model under their JSON names."""
    return {model: _named(units) for model, units in cost.nonzero().items()}


def by_role(parts: Mapping[str, Cost]) -> dict[str, dict[str, int]]:
    """Return for each role ("generate", "verify", ...) its nonzero counts, all models together."""
    out: dict[str, dict[str, int]] = {}
    for role, cost in sorted(parts.items()):
        summed: dict[str, int] = {}
        for units in cost.nonzero().values():
            for unit, n in units.items():
                summed[unit] = summed.get(unit, 0) + n
        if summed:
            out[role] = _named(summed)
    return out


def _named(units: Mapping[str, int]) -> dict[str, Any]:
    return {NAMES.get(unit, unit): n for unit, n in units.items()}
