"""What can go wrong.

    OutthinkError
    ├── OutOfBudget        the bound of a request does not fit in what its account has left
    ├── Cancelled          a group that was waited for has been cancelled
    ├── Stuck              nothing is in flight and everybody waits for somebody else
    ├── Unsupported        a backend lacks a capability that was asked for (nothing was spent)
    ├── BackendError       the backend failed, and no attempt is left
    ├── ReplayMismatch     a replayed run asks for something else than the recorded one
    └── InvalidInput       what was given cannot be used: says what, what is allowed, what to do

Outcomes (a budget that ends, a deadline, no answer) are data on `Run`, not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OutthinkError(Exception):
    """Base of everything raised on purpose."""


class OutOfBudget(OutthinkError):
    """The request was refused; its message is made only when somebody reads it (100,000 may be refused)."""

    def __init__(self, request: object, shortfall: object) -> None:
        super().__init__()
        self.request, self.shortfall = request, shortfall

    def __str__(self) -> str:
        return f"{self.request!r} was refused: {self.shortfall}"


class Cancelled(OutthinkError):
    """Raised in whoever waits for a group that somebody else cancelled."""


class Stuck(OutthinkError):
    """Circular waits: nothing is in flight, nothing is queued, and these places wait."""


class Unsupported(OutthinkError):
    """A capability is missing; raised before anything is spent."""


class BackendError(OutthinkError):
    """The backend failed for good."""


class ReplayMismatch(OutthinkError):
    """The program is not the one that was recorded."""


class InvalidInput(OutthinkError, ValueError):
    """A usage error: the command line turns it into exit code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InvalidInput:
    """Return the error for a name that is not known, with the closest match and all that is allowed."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InvalidInput(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
