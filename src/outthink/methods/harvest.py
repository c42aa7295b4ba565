"""All that fits, taken as it comes: what `fitting` is at its end, this is all the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ..core.errors import BackendError, OutOfBudget
from ..core.tree import Group
from ..core.verbs import Grant, start, wait

R = TypeVar("R")


async def harvest(
    work: Iterable[Awaitable[R]], *, each: Grant | None = None, take: Callable[[list[R]], Awaitable[None]]
) -> OutOfBudget | BackendError | None:
    """Run all of `work` that fits and hand every result, or what a piece had kept, to `take` as soon as it is there.

    Returns:
      Why a piece did not return (a want of budget before a failure of a backend), None if all did. Other errors are
      raised. `take` gets the results of one moment together, in order of completion, never an empty list.
    """
    group: Group[R] = await start(work, each=each)
    seen, why = 0, None
    while True:
        fresh = (await wait(group, seen + 1))[seen:]
        if not fresh:
            return why
        seen += len(fresh)
        for outcome in fresh:
            if isinstance(outcome.error, OutOfBudget) or (isinstance(outcome.error, BackendError) and why is None):
                why = outcome.error
            elif outcome.error is not None and not isinstance(outcome.error, BackendError):
                raise outcome.error
        results = [outcome.best for outcome in fresh if outcome.best is not None]
        if results:
            await take(results)
