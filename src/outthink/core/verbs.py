"""Everything that a method can do besides awaiting a request.

Three traps (`start`, `wait`, `cancel`) and what is derived from them. `work` is requests or coroutines, a list or a
lazy iterable; results keep its order whoever finishes first. When a coroutine ends, everything it started is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

from .budget import Budget, Left
from .cost import Cost
from .errors import BackendError, OutOfBudget
from .request import Request
from .tree import Group, Outcome

R = TypeVar("R")
Grant = Cost | Budget
"""What a sub-budget sets aside: a budget, or the cost of something, in whatever units the account is limited."""


class Trap(Generic[R]):
    """What a coroutine yields to the runtime: a verb and its arguments."""

    __slots__ = ("args", "verb")

    def __init__(self, verb: str, *args: Any) -> None:
        self.verb, self.args = verb, args

    def __await__(self) -> Generator[Trap[R], R, R]:
        return (yield self)


def start(
    work: Iterable[Awaitable[R]], *, each: Grant | Iterable[Grant] | None = None, parked: bool = False
) -> Trap[Group[R]]:
    """Begin every piece of `work`; with `each`, a piece begins only when its sub-budget can be set aside.

    With `parked` too, the sub-budgets are set aside and the pieces wait for `resume(group)`: how to keep a reserve.
    An iterable of grants gives the pieces one each. Pieces are drawn lazily, a window at a time; when one is refused,
    or ends for want of budget without having spent anything, no more are drawn (but with one grant each: the next may
    be larger).
    """
    return Trap("start", work, each, "all", parked)


def wait(group: Group[R], count: int | None = None) -> Trap[Sequence[Outcome[R]]]:
    """Sleep until `count` pieces of the group have ended (None: all); return all that have, in order of completion."""
    return Trap("wait", group, count)


def resume(group: Group[Any]) -> Trap[None]:
    """Let the pieces of a group that was started `parked` begin."""
    return Trap("resume", group)


def cancel(group: Group[Any]) -> Trap[None]:
    """Cancel what has not ended. What is in flight stays reserved until it settles; the caller goes on at once."""
    return Trap("cancel", group)


def keep(state: Any, value: float | None = None, *, complete: bool = True) -> Trap[None]:
    """Report a state of this coroutine: "if you stop me now, this is what I have".

    complete: whether it has a usable answer (`space.answer(state) is not None`).
    Order: complete before incomplete, scored before unscored, then value, then first kept. Keep a draft before paying
    for its score. What the top coroutine keeps is what an interrupted run returns; what a branch keeps reaches its
    parent as `Outcome.kept`. A plain `await` of another coroutine is still this coroutine: a verifier that is itself a
    search must start that search as work, `await gather([search(...)])`.
    """
    return Trap("keep", state, value, complete)


def kept() -> Trap[bool]:
    """Return whether this coroutine has kept something complete."""
    return Trap("kept")


def left() -> Trap[Left]:
    """Return what the nearest account can still spend (traced, so that a replay decides alike)."""
    return Trap("left")


def bound(request: Request[Any]) -> Trap[Cost]:
    """Return the most that `request` would cost now, by the backend that would serve it. Spends nothing."""
    return Trap("bound", request)


def note(**facts: Any) -> Trap[None]:
    """Record why: kept, pruned, propensity, reason. Free; reports and causal analysis live on it. Values are JSON."""
    return Trap("note", facts)


async def gather(work: Iterable[Awaitable[R]]) -> list[R]:
    """Run all, together; return the results in the order given. The first error cancels the rest and is raised."""
    group: Group[R] = await Trap("start", work, None, "together", False)
    done = await wait(group)
    failed = next((outcome.error for outcome in done if outcome.error is not None), None)
    if failed is not None:
        await cancel(group)
        try:
            raise failed
        finally:
            del failed, done, group  # the traceback would keep this frame, and the frame the traceback
    return [outcome.value for outcome in sorted(done, key=_index)]  # type: ignore[misc]


async def fitting(work: Iterable[Awaitable[R]], *, each: Grant | None = None) -> list[R | None]:
    """Run all that fits; return results aligned with the input, None where nothing came.

    With `each`, a branch starts only if that much can be set aside for it, so what starts can finish. After a refusal
    nothing more is drawn from a lazy input: the list is as long as what was drawn (a sequence: as the sequence). A
    branch that ran out of its own budget or whose backend failed gives what it had kept, or None. Other errors are
    raised.
    Raises OutOfBudget if every piece was refused, so that a caller can end; of no work returns [].
    """
    group: Group[R] = await start(work, each=each)
    done = await wait(group)
    drawn = max((outcome.index + 1 for outcome in done), default=0)
    out: list[R | None] = [None] * max(drawn, len(work) if isinstance(work, Sequence) else 0)
    for outcome in done:
        if outcome.error is not None and not _expected(outcome.error):
            raise outcome.error
        out[outcome.index] = outcome.best
    refused = [outcome.error for outcome in done if isinstance(outcome.error, OutOfBudget)]
    if refused and len(refused) == len(done) and all(value is None for value in out):
        raise refused[0]
    return out


async def first(work: Iterable[Awaitable[R]], *, count: int = 1, accept: Callable[[R], bool] | None = None) -> list[R]:
    """Race: return the first `count` accepted results in order of completion, and cancel the rest (their cost counts).

    A piece that was refused or failed is no winner. Fewer than `count` if fewer were accepted; if none was and a piece
    was refused for want of budget, raises OutOfBudget.
    """
    group: Group[R] = await start(work)
    won: list[R] = []
    seen, refused = 0, None
    while len(won) < count:
        done = await wait(group, seen + 1)
        if len(done) == seen:
            break  # all have ended
        for outcome in done[seen:]:
            if outcome.error is None:
                if len(won) < count and (accept is None or accept(outcome.value)):  # type: ignore[arg-type]
                    won.append(outcome.value)  # type: ignore[arg-type]
            elif not _expected(outcome.error):
                raise outcome.error
            elif isinstance(outcome.error, OutOfBudget):
                refused = outcome.error
        seen = len(done)
    await cancel(group)
    if not won and refused is not None:
        raise refused
    return won


async def within(grants: Grant | Iterable[Grant], work: Iterable[Awaitable[R]]) -> list[Outcome[R]]:
    """Run each piece under its own set-aside sub-budget; return all outcomes in the order given.

    One grant serves for every piece, several are dealt in order. A piece whose grant could not be set aside has the
    error OutOfBudget and cost nothing; so have those of a sequence that come after it under the same grant (of a lazy
    input they are not drawn). Errors are data here, except those that no budget or backend explains.
    """
    group: Group[R] = await start(work, each=grants)
    done = sorted(await wait(group), key=_index)
    for outcome in done:
        if outcome.error is not None and not _expected(outcome.error):
            raise outcome.error
    if isinstance(work, Sequence) and len(done) < len(work):
        refused = next(outcome.error for outcome in reversed(done) if outcome.error is not None)
        done += [Outcome(index, error=refused, cost=Cost()) for index in range(len(done), len(work))]
    return done


def _index(outcome: Outcome[Any]) -> int:
    return outcome.index


def _expected(error: Exception) -> bool:
    """Errors that are outcomes of spending, not mistakes in the program."""
    return isinstance(error, OutOfBudget | BackendError)
