"""The published systems: one file each, thin recipes over the mechanisms. Names for the command line and servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from ..core.errors import InvalidInput, unknown
from .cards import Card, parse
from .solver import Models, Solver

NAMES = (
    "baselines/adaptive_consistency",
    "baselines/beam",
    "baselines/best_of_n",
    "baselines/dvts",
    "baselines/greedy",
    "baselines/majority",
    "baselines/particle_filtering",
    "baselines/rebase",
    "baselines/weighted_majority",
    "sampling/monkeys",
    "serving/hydragen",
    "serving/sarathi",
    "stopping/first_finish",
)
"""All there are; a test asserts that list and files agree."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One published system. `solver` None: it does not answer prompts (see its card's Entry).

    claim: the inequality its claim test measures. status: "holds", "does not hold here: ...", "not measured", or
    "baseline" for what others are compared with.
    """

    name: str
    family: str
    title: str
    needs: frozenset[str]
    card: Card
    solver: Callable[..., Solver] | None
    claim: str
    status: str


def names() -> tuple[str, ...]:
    """Return the full names, sorted."""
    return NAMES


def load(name: str) -> Entry:
    """Return the entry of a full name ("sampling/monkeys") or a short one ("monkeys"); imports only its file.

    Raises InvalidInput for an unknown name, with the closest match.
    """
    full = name if name in NAMES else next((n for n in NAMES if n.split("/")[-1] == name.replace("-", "_")), None)
    if full is None:
        raise unknown("method", name, (*NAMES, *(n.split("/")[-1] for n in NAMES)))
    module: Any = import_module("." + full.replace("/", "."), __name__)
    card = parse(module.__doc__, name=full)
    return Entry(
        full, full.split("/")[0], card.title, frozenset(module.NEEDS), card, getattr(module, "solver", None),
        card.parts["Claim"], status(full),
    )  # fmt: skip


def status(name: str) -> str:
    """Return what came of a paper's claim, by the results shipped with the package."""
    if name.startswith("baselines/"):
        return "baseline"
    return _statuses().get(name, "not measured")


@cache
def _statuses() -> dict[str, str]:
    text = files(__name__).joinpath("claims.json").read_text("utf-8")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise InvalidInput("papers/claims.json is not an object; write it anew by: python -m outthink.papers")
    return found


__all__ = ["NAMES", "Entry", "Models", "Solver", "load", "names", "status"]
