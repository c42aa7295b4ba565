"""An answer for sure: a greedy one is set aside, or comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, TypeVar

from ..core.cost import Cost
from ..core.errors import OutOfBudget
from ..core.verbs import keep, kept, left, note, resume, start, wait
from ..core.verdict import Answer

S = TypeVar("S", bound=Hashable)


async def finishing(
    method: Callable[[], Awaitable[S]], greedy: Callable[[], Coroutine[Any, Any, S]], *, reserve: Cost,
    answer: Callable[[S], Answer | None],
) -> S:  # fmt: skip
    """Return what `method` returns; if it ends without anything complete, what `greedy` gives.

    Args:
      reserve: the bound of `greedy`, set aside before `method` begins and given back unspent when it is not needed.
        Where the account cannot pay for it, `greedy` goes first with all there is, and `method` has the rest.
      answer: reads the answer off a state, None where it has none.

    So any budget that can pay for one greedy answer yields one. Both parts run in this coroutine: what they keep is
    there for whoever interrupts it. Budget end in `method` with something complete kept: OutOfBudget is raised, and
    what was kept is the result.
    """
    if (await left()).times(reserve) == 0:
        return await opening(lambda _: method(), greedy, answer=answer)
    aside = await start([greedy()], each=reserve, parked=True)
    try:
        state = await method()
        if answer(state) is not None:
            return state
    except OutOfBudget:
        if await kept():
            raise
    await note(reason="nothing complete was kept: the answer set aside is spent")
    await resume(aside)
    (outcome,) = await wait(aside)
    if outcome.error is not None and outcome.best is None:
        raise outcome.error
    await keep(outcome.best, complete=answer(outcome.best) is not None)
    return outcome.best


async def opening(
    method: Callable[[Sequence[S]], Awaitable[S]], greedy: Callable[[], Awaitable[S]], *,
    answer: Callable[[S], Answer | None],
) -> S:  # fmt: skip
    """Return what `method` makes of the greedy answer and of what the budget has left after it.

    method: called with the finished greedy state in a list; it may use it as a candidate and as a measure of length.

    As safe as `finishing`, and nothing lies idle: for methods that ask for as many answers as the budget pays for. If
    `method` cannot even begin, or has no answer, the greedy state is returned. If `greedy` finds no room at all,
    OutOfBudget is raised.
    """
    state = await greedy()
    await keep(state, complete=answer(state) is not None)
    try:
        other = await method([state])
    except OutOfBudget:
        return state
    return other if answer(other) is not None else state
