"""What a comparison plots: for each method, accuracy against the tokens it really took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b", "#7f7f7f", "#bcbd22")
"""Okabe and Ito's palette and three more: told apart by the colour-blind and in print."""


@dataclass(frozen=True, slots=True)
class Point:
    """One row: measured tokens per problem, accuracy and its interval."""

    tokens: float
    accuracy: float
    low: float
    high: float
    budget: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One method, its points by tokens. `colour` depends on the method's place, so it is the same in every plot."""

    method: str
    colour: str
    points: tuple[Point, ...]


def curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return one curve per method in order of appearance; budgets at which nothing changed are one point."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    out = []
    for place, method in enumerate(methods):
        points: dict[tuple[float, float], Point] = {}
        for row in rows:
            if row["method"] == method:
                tokens = float(row["cost"]["tokens_per_problem"])
                point = Point(tokens, row["accuracy"], row["low"], row["high"], row["budget"])
                points.setdefault((tokens, row["accuracy"]), point)
        ordered = tuple(sorted(points.values(), key=lambda point: point.tokens))
        out.append(Curve(method, COLOURS[place % len(COLOURS)], ordered))
    return out


def ticks(low: float, high: float) -> list[int]:
    """Return the powers of two, or of ten if those were more than ten, from just below `low` to just above `high`."""
    low, high = max(low, 1.0), max(high, 2.0)
    for base in (2, 10):
        out = [1]
        while out[-1] < high:
            out.append(out[-1] * base)
        out = [tick for tick in out if tick * base > low]
        if len(out) <= 10:
            return out
    return out


def short(number: float) -> str:
    """Return a count as people write it: 950, 1.2k, 64k, 3.1M; binary thousands (1024, 4096) as 1k, 4k."""
    for scale, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= scale:
            binary = 1 << (20 if letter == "M" else 10)
            if number == int(number) and int(number) % binary == 0:
                return f"{int(number) // binary}{letter}"
            return f"{number / scale:.3g}{letter}"
    return f"{number:.3g}"


def spread(ys: Sequence[float], gap: float) -> list[float]:
    """Return label positions near `ys`, in their order, at least `gap` apart, moved as little as a sweep can."""
    order = sorted(range(len(ys)), key=lambda i: ys[i])
    out = list(ys)
    for _ in range(50):
        for a, b in pairwise(order):
            lack = gap - (out[b] - out[a])
            if lack > 0:
                out[a] -= lack / 2
                out[b] += lack / 2
    return out
