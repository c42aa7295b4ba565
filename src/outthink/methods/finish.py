"""An answer for sure: a greedy one is set aside, or comes first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from typing import Any, Generic, TypeVar

from ..core.cost import Cost
from ..core.errors import Cancelled, OutOfBudget
from ..core.verbs import Trap, cancel, keep, left, note, start, wait
from ..core.verdict import Answer

S = TypeVar("S", bound=Hashable)


async def finishing(
    method: Callable[[], Awaitable[S]], greedy: Callable[[], Awaitable[S]], *, reserve: Cost,
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
    watched = _Watched(method())
    gate = await start([_closed(gates := [])])
    gates.append(gate)
    aside = await start([_behind(gate, greedy)], each=reserve)
    try:
        state = await watched
        if answer(state) is not None:
            return state
    except OutOfBudget:
        if watched.complete:
            raise
    await note(reason="nothing complete was kept: the answer set aside is spent")
    await cancel(gate)
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


async def _closed(gates: Sequence[Any]) -> None:
    """Wait for the group that this very coroutine is in: until it is cancelled."""
    await wait(gates[0])


async def _behind(gate: Any, work: Callable[[], Awaitable[S]]) -> S:
    """Hold this branch's sub-budget until `gate` is cancelled; then run `work` on it."""
    try:
        await wait(gate)
    except Cancelled:
        pass
    return await work()


class _Watched(Generic[S]):
    """`work`, and whether it kept something complete. Every trap is passed on as it is."""

    def __init__(self, work: Awaitable[S]) -> None:
        self.work, self.complete = work, False

    def __await__(self) -> Generator[Any, Any, S]:
        steps = self.work.__await__()
        reply, error = None, None
        while True:
            try:
                trap = steps.send(reply) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            if type(trap) is Trap and trap.verb == "keep":
                self.complete = self.complete or trap.args[2]
            try:
                reply, error = (yield trap), None
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as raised:
                reply, error = None, raised
