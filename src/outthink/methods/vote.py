"""Which finished state is the answer: voting and choosing, pure.

Answers are canonical strings. A leaf without an answer abstains: it never wins against an answer, whatever its value.
Ties go to the smallest blake2b of (seed, answer), so neither the order in which drafts finished nor their text decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..core.errors import unknown
from ..core.seeds import fold

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Leaf(Generic[S]):
    """A state at the end of a search; `answer` None where it has none, `value` None where it was not scored.

    votes: what it counts in a majority; a little above 1 makes ties go to it.
    """

    state: S
    answer: str | None
    value: float | None = None
    votes: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice(Generic[S]):
    """The chosen state, and the value that speaks for it: votes, weight or reward. `answer` None: all abstained."""

    state: S
    answer: str | None
    value: float | None


Choose = Callable[..., "Choice[Any] | None"]
"""`choose(leaves, *, seed)`: None of no leaves."""


def winner(weights: Mapping[str, float], *, seed: int) -> str | None:
    """Return the answer with the largest weight, None of none; ties by the seeded hash."""
    return min(weights, key=lambda answer: (-weights[answer], fold(seed, answer)), default=None)


def tally(answers: Iterable[str | None]) -> Counter[str]:
    """Return the votes of each answer; abstentions are left out."""
    return Counter(answer for answer in answers if answer is not None)


def majority(leaves: Sequence[Leaf[S]], *, seed: int) -> Choice[S] | None:
    """Choose the commonest answer; its value is its number of votes."""
    sums: dict[str, list[float]] = {}
    for leaf in leaves:
        if leaf.answer is not None:
            sums.setdefault(leaf.answer, []).append(leaf.votes)
    return _elect(leaves, {answer: math.fsum(votes) for answer, votes in sums.items()}, seed=seed)


def weighted(leaves: Sequence[Leaf[S]], *, seed: int) -> Choice[S] | None:
    """Choose the answer with the largest sum of values (weighted best-of-N, verifier-weighted majority).

    Leaves without a value have no weight; where none that answers has a value, every vote counts the same. Values are
    probabilities or at least not negative: a negative sum would make a second vote count against an answer.
    """
    sums: dict[str, list[float]] = {}
    for leaf in leaves:
        if leaf.answer is not None and leaf.value is not None:
            sums.setdefault(leaf.answer, []).append(leaf.value)
    if not sums:
        return _unscored(leaves, seed=seed)
    return _elect(leaves, {answer: math.fsum(values) for answer, values in sums.items()}, seed=seed)


def best(leaves: Sequence[Leaf[S]], *, seed: int) -> Choice[S] | None:
    """Choose the leaf with the largest value (best-of-N); where none that answers has one, the commonest answer."""
    peaks: dict[str, float] = {}
    for leaf in leaves:
        if leaf.answer is not None and leaf.value is not None:
            peaks[leaf.answer] = max(leaf.value, peaks.get(leaf.answer, -math.inf))
    if not peaks:
        return _unscored(leaves, seed=seed)
    return _elect(leaves, peaks, seed=seed)


CHOICES: Mapping[str, Choose] = {"best": best, "majority": majority, "weighted": weighted}
"""The choices by the names that knobs use."""


def choice_named(name: str) -> Choose:
    """Return the choice of this name. Raises InvalidInput for an unknown one, with the closest match."""
    if name not in CHOICES:
        raise unknown("choice", name, CHOICES)
    return CHOICES[name]


def _elect(leaves: Sequence[Leaf[S]], weights: Mapping[str, float], *, seed: int) -> Choice[S] | None:
    """Choose the winning answer and the leaf that stands for it: the best valued, then by the seeded hash."""
    answer = winner(weights, seed=seed)
    mine = [leaf for leaf in leaves if leaf.answer == answer]
    if not mine:
        return None
    leaf = min(mine, key=lambda leaf: (-_value(leaf), fold(seed, repr(leaf.state))))
    return Choice(leaf.state, answer, None if answer is None else float(weights[answer]))


def _unscored(leaves: Sequence[Leaf[S]], *, seed: int) -> Choice[S] | None:
    """Choose by majority; no value, because votes must not be compared with rewards."""
    choice = majority(leaves, seed=seed)
    return choice and replace(choice, value=None)


def _value(leaf: Leaf[Any]) -> float:
    return -math.inf if leaf.value is None else leaf.value
