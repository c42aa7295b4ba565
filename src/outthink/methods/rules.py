"""The level-synchronous searches as rules: who gets how many children, and what becomes of finished paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from ..core.errors import InvalidInput, unknown
from .widths import Potential, balanced, islands, multinomial, potentials, systematic, top

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Node(Generic[S]):
    """A state of the level at hand. `score` None: not known (yet). `island`: its subtree, None for the root."""

    state: S
    score: float | None
    done: bool
    island: int | None = None

    @property
    def worth(self) -> float:
        """The score, as a number that can be compared: what has none is worst."""
        return -math.inf if self.score is None else self.score

    def scored(self, score: float | None) -> Node[S]:
        return replace(self, score=score)


Resampling = Literal["multinomial", "systematic"]
Widths = Callable[[Sequence[Node[Any]], int, int], Sequence[int]]
"""`(nodes, width, seed)` -> children of each node, 0 where it is pruned. Every node has a score; finished ones are
among them, and unless the rule absorbs they get 0. Pure."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes a search beam search, DVTS, REBASE or a particle filter.

    fan: the width of the root is a multiple of this; its children 0 to fan - 1 are island 0, and so on.
    refund: each finished path takes its place with it, so that a search of width N pays for about N paths; else those
      that live on share the whole width at every level.
    absorb: finished nodes stay among the nodes, and what `widths` gives them is how often they count at the end.
    """

    widths: Widths
    fan: int = 1
    refund: bool = True
    absorb: bool = False


def beam(*, fan: int = 4, refund: bool = True) -> Rule:
    """Return beam search: the best N / M nodes get M children each (fan: M). Source: Snell et al. 2024, BFS-V."""

    def widths(nodes: Sequence[Node[Any]], width: int, seed: int) -> Sequence[int]:
        return _among_live(nodes, lambda scores: top(scores, width, fan=fan))

    return Rule(widths, fan=_fan(fan), refund=refund)


def dvts(*, fan: int = 4) -> Rule:
    """Return diverse verifier tree search: N / M islands, in each the best node gets M children (fan: M).

    An island whose best node is finished has ended; finished siblings of a better node are leaves all the same.
    Source: Beeching et al. 2024.
    """

    def widths(nodes: Sequence[Node[Any]], width: int, seed: int) -> Sequence[int]:
        open_ = {node.island for node in nodes} - {leader.island for leader in _leaders(nodes) if leader.done}
        mine = [i for i, node in enumerate(nodes) if node.island in open_ and not node.done]
        out = [0] * len(nodes)
        shares = islands([nodes[i].worth for i in mine], [nodes[i].island or 0 for i in mine], width, fan=fan)
        for i, w in zip(mine, shares, strict=True):
            out[i] = w
        return out

    return Rule(widths, fan=_fan(fan), refund=False)


def rebase(*, temperature: float = 0.1, exact: bool = True) -> Rule:
    """Return REBASE: the width is shared in proportion to softmax(score / temperature). temperature: T_b.

    exact: see `widths.balanced`. Source: Wu et al. 2025.
    """

    def widths(nodes: Sequence[Node[Any]], width: int, seed: int) -> Sequence[int]:
        return _among_live(nodes, lambda scores: balanced(scores, width, temperature=temperature, exact=exact))

    return Rule(widths)


def particles(
    *, temperature: float = 1.0, potential: Potential = "odds",
    resampling: Resampling = "multinomial", absorb: bool = True,
) -> Rule:  # fmt: skip
    """Return a particle filter: N particles are drawn anew at every level, in proportion to their potential.

    absorb: stopped particles stay in the pool with their last weight, and are drawn or lost like the others (the
      published script); False: they are set aside as they stop, and only the others are drawn anew.
    Source: Puri et al. 2025.
    """
    draw = {"multinomial": multinomial, "systematic": systematic}.get(resampling)
    if draw is None:
        raise unknown("resampling", resampling, ("multinomial", "systematic"))

    def drawn(scores: Sequence[float], width: int, seed: int) -> Sequence[int]:
        return draw(potentials(scores, potential=potential, temperature=temperature), width, seed=seed)

    def widths(nodes: Sequence[Node[Any]], width: int, seed: int) -> Sequence[int]:
        if absorb:
            return drawn([node.worth for node in nodes], width, seed)
        return _among_live(nodes, lambda scores: drawn(scores, width, seed))

    return Rule(widths, refund=not absorb, absorb=absorb)


def _among_live(nodes: Sequence[Node[Any]], share: Callable[[Sequence[float]], Sequence[int]]) -> list[int]:
    """Return the widths that `share` gives to the live nodes, 0 for the finished ones."""
    live = [i for i, node in enumerate(nodes) if not node.done]
    out = [0] * len(nodes)
    for i, w in zip(live, share([nodes[i].worth for i in live]), strict=True):
        out[i] = w
    return out


def _leaders(nodes: Sequence[Node[Any]]) -> list[Node[Any]]:
    """Return the best node of each island, the earlier at equal scores."""
    best: dict[int | None, Node[Any]] = {}
    for node in nodes:
        if node.island not in best or node.worth > best[node.island].worth:
            best[node.island] = node
    return list(best.values())


def _fan(fan: int) -> int:
    if fan < 1:
        raise InvalidInput(f"fan is {fan}; a kept node gets at least one child")
    return fan
