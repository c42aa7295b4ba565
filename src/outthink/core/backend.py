"""The port below the runtime: whoever does the work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .cost import Cost
from .request import Request

CAPABILITIES = frozenset(
    "sample score embed denoise act call train continue "
    "prefix seed stop logprobs hidden monitor force pause forks latent".split()
)
"""What a backend may be able to do. `prefix`: it holds prefixes, so a child's bound counts only what is new.
`continue`: it goes on with an unfinished answer, not only with a prompt; whatever has `prefix` can."""


class Ticket(Protocol):
    """What the runtime hands over with a request: an opaque key, and what a bound may depend on."""

    held: Collection[bytes]
    """Digests of the prefixes that this backend has promised to hold for the run that asks."""
    bound: Cost
    """What was reserved; a backend with `prefix` charges the prompt that stands here."""

    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed. `retry`: whether another attempt may help; `after`: seconds to wait before it."""

    message: str
    retry: bool = False
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of a reply on its way; goes to those who watch the run, never to methods."""

    ticket: Ticket
    text: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of an attempt: exactly one per submitted ticket, cancelled ones too.

    cost: what it really took; `exact=False` where the server would not say, and then it is the upper end.
    """

    ticket: Ticket
    reply: Any
    cost: Cost
    failure: Failure | None = None
    exact: bool = True


Item = Progress | Settled


class Backend(Protocol):
    """Does the work. `stepped` backends work inside `step`; the others work elsewhere and call what `attach` gave them.

    With anything in flight, it eventually reports every ticket exactly once, without needing further requests.
    """

    stepped: bool

    @property
    def capabilities(self) -> frozenset[str]: ...

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        """Return the most that `request` can cost. Raise `Unsupported` or `InvalidInput` if it cannot be served."""
        ...

    def room(self) -> int:
        """Return how many more requests may be submitted now."""
        ...

    def submit(self, ticket: Ticket, request: Request[Any]) -> None: ...

    def cancel(self, ticket: Ticket) -> None:
        """Ask for an early end; the `Settled` still comes, with what was spent."""
        ...

    def step(self) -> Sequence[Item]:
        """Work for a moment and return what happened; a backend that is not stepped returns nothing."""
        ...

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Give the backend a thread-safe way to report; called once, before the first `submit`."""
        ...

    def close(self) -> None:
        """Let go of threads, connections and memory."""
        ...
