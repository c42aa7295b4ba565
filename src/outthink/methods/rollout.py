"""One whole answer: grow a state until it is done."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from ..core.seeds import fold
from ..core.verbs import keep
from ..core.verdict import Space

S = TypeVar("S", bound=Hashable)


async def rollout(space: Space[S], state: S, *, keeping: bool = False, seed: int) -> S:
    """Return `state` grown until it is done; a state that is done, as it is.

    keeping: keep every state on the way, so that what there was remains when the budget ends (OutOfBudget is raised).
    A state that has no child is returned as far as it came.
    """
    step = 0
    while not space.is_done(state):
        children = await space.expand(state, 1, fold(seed, step))
        if not children:
            break
        state, step = children[0], step + 1
        if keeping:
            await keep(state, complete=space.answer(state) is not None)
    return state


async def once(space: Space[S], *, seed: int) -> S:
    """Return one answer: a rollout from the root. Greedy decoding, where the space samples at temperature 0."""
    return await rollout(space, await space.root(fold(seed, "root")), keeping=True, seed=fold(seed, "draft"))
