"""How many children each node of a level gets: the arithmetic in which beam, DVTS, REBASE and particles differ.

Pure functions from scores to whole numbers. Scores are finite; probabilities unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Literal

from ..core.errors import InvalidInput, unknown

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 before their odds are taken (as published)."""

Potential = Literal["odds", "prob", "exp"]


def even(width: int, nodes: int) -> list[int]:
    """Return `width` spread over `nodes` as evenly as it goes; the first ones get one more. No nodes: []."""
    _whole(width)
    return [width // nodes + (i < width % nodes) for i in range(nodes)]


def top(scores: Sequence[float], width: int, *, fan: int) -> list[int]:
    """Return the widths of beam search: the best width // fan nodes get `fan` children each, the others none.

    Args:
      scores: one per node. Ties go to the earlier node.
      width: N, the children of the whole level; what does not divide by `fan` is left over, but a width below `fan`
        goes whole to the best node. Where there are fewer than width // fan nodes, it goes round them again.
      fan: M, the children of a kept node.
    """
    _whole(width)
    if fan < 1:
        raise InvalidInput(f"fan is {fan}; a kept node gets at least one child")
    out = [0] * len(scores)
    best = sorted(range(len(scores)), key=lambda i: -scores[i])
    if width < fan:
        for i in best[:1]:
            out[i] = width
        return out
    for family in range(width // fan if best else 0):
        out[best[family % len(best)]] += fan
    return out


def islands(scores: Sequence[float], island: Sequence[int], width: int, *, fan: int) -> list[int]:
    """Return the widths of diverse verifier tree search: in each island the best node gets `fan`, the others none.

    Args:
      scores, island: one per node; nodes of one island compete only with each other. Ties go to the earlier node.
      width: where it does not pay for all islands, those with the best leaders go on; below `fan` the best one gets it.
    """
    leaders: dict[int, int] = {}
    for i, name in enumerate(island):
        if name not in leaders or scores[i] > scores[leaders[name]]:
            leaders[name] = i
    chosen = list(leaders.values())
    width = min(width, fan * len(chosen))  # an island never gets what another leaves
    out = [0] * len(scores)
    for i, w in zip(chosen, top([scores[i] for i in chosen], width, fan=fan), strict=True):
        out[i] = w
    return out


def softmax(logits: Sequence[float], *, temperature: float = 1.0) -> list[float]:
    """Return the shares of a softmax; they sum to 1. Temperature 0 is its limit: the largest share alike the total."""
    if temperature < 0:
        raise InvalidInput(f"temperature is {temperature}; it is zero or more")
    peak = max(logits, default=0.0)
    if temperature == 0:
        raw = [float(x == peak) for x in logits]
    else:
        raw = [math.exp((x - peak) / temperature) for x in logits]
    total = math.fsum(raw)
    return [x / total for x in raw]


def balanced(scores: Sequence[float], width: int, *, temperature: float, exact: bool = True) -> list[int]:
    """Return the widths of REBASE: `width` shared in proportion to softmax(score / temperature).

    Args:
      width: B, what is left of the level's width.
      temperature: T_b; 0 gives all to the best node.
      exact: True: as in the published code, from the best node down each takes ceil(what is left * its share of what is
        left), so the widths sum to `width` and the tail gets 0. False: as printed in the paper, each share rounded on
        its own (half to even), and the sum may differ from `width` by up to half the number of nodes.

    Equal scores: the earlier node is served first. No nodes: [].
    Source: Wu et al. 2025, section 3.2 and its code.
    """
    _whole(width)
    if not scores:
        return []
    shares = softmax(scores, temperature=temperature)
    if not exact:
        return [round(width * share) for share in shares]
    out = [0] * len(scores)
    rest = math.fsum(shares)
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if width == 0 or rest <= 0:
            break
        # 1e-9: shares are rounded, and a ceiling would turn 2.0000000000000004 into 3
        out[i] = min(width, math.ceil(width * min(1.0, shares[i] / rest) - 1e-9))
        width -= out[i]
        rest -= shares[i]
    if width:  # only where all that was left of the shares underflowed to zero
        out[max(range(len(scores)), key=lambda i: scores[i])] += width
    return out


def potentials(scores: Sequence[float], *, potential: Potential, temperature: float = 1.0) -> list[float]:
    """Return normalised weights of particles with step rewards `scores`.

    potential: "odds": (r / (1 - r)) ** (1 / temperature), what the published code does: a softmax of logits;
      "prob": r ** (1 / temperature), the paper's formula; "exp": exp(r / temperature), its Algorithm 1.
    """
    if potential == "odds":
        clipped = [min(1 - EPSILON, max(EPSILON, r)) for r in scores]
        return softmax([math.log(r / (1 - r)) for r in clipped], temperature=temperature)
    if potential == "prob":
        return softmax([math.log(max(EPSILON, r)) for r in scores], temperature=temperature)
    if potential == "exp":
        return softmax(scores, temperature=temperature)
    raise unknown("potential", potential, ("odds", "prob", "exp"))


def multinomial(shares: Sequence[float], width: int, *, seed: int) -> list[int]:
    """Return how often each node is drawn in `width` independent draws; the expectation is width * share."""
    _whole(width)
    out = [0] * len(shares)
    if shares:
        for i in Random(seed).choices(range(len(shares)), weights=shares, k=width):
            out[i] += 1
    return out


def systematic(shares: Sequence[float], width: int, *, seed: int) -> list[int]:
    """Return counts of systematic resampling: one random offset, so each is floor or ceiling of width * share."""
    _whole(width)
    out = [0] * len(shares)
    if not shares or not width:
        return out
    offset, passed, drawn = Random(seed).random(), 0.0, 0
    for i, share in enumerate(shares):
        passed += share * width
        reach = min(width, max(drawn, math.ceil(passed - offset)))
        out[i], drawn = reach - drawn, reach
    out[max(range(len(shares)), key=lambda i: shares[i])] += width - drawn  # rounding of the last partial sum
    return out


def _whole(width: int) -> None:
    if width < 0:
        raise InvalidInput(f"width is {width}; it is zero or more")
