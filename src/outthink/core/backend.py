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
`continue`: it goes on with an unfinished answer, not only with a prompt; whatever has `prefix` can.
`pause`: it stops a `Sample` where its money ends and goes on with it later; it then is a `Pausing` backend."""


class Ticket(Protocol):
    """What the runtime hands over with a request: an opaque key, and what a bound may depend on."""

    held: Collection[bytes]
    """Digests of the prefixes that this backend has promised to hold for the run that asks."""
    bound: Cost
    """What is reserved; a backend with `prefix` charges the prompt that stands here. It can grow while the ticket is in
    flight, and then nothing else in it changes than the units of what is written (see `Pausing`)."""

    @property
    def path(self) -> str: ...

    @property
    def run(self) -> Any:
        """Opaque, and the same for all tickets of a run."""

    @property
    def watched(self) -> bool:
        """Whether anybody watches the run now. While nobody does, no `Progress` need be made."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed. `retry`: whether another attempt may help; `after`: seconds to wait before it."""

    message: str
    retry: bool = False
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A piece of a reply on its way; goes to those who watch the run, never to methods.

    The pieces of a ticket add up to the text of its draft. Those of a ticket that nobody watches (`ticket.watched`) may
    be left out; who begins to watch in the middle of a reply gets the rest of it.
    """

    ticket: Ticket
    text: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A `Sample` has written all output that `ticket.bound` pays for and is not at its end; `Pausing` says the rest."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Settled:
    """The end of an attempt: exactly one per submitted ticket, cancelled ones too.

    cost: what it really took; `exact=False` where the server would not say, and then it is the upper end.
    kv: the most bytes of keys and values that the backend held at one moment, while this ticket was in flight, for all
      tickets of its run together (what they share counts once); 0 where it does not know. `Run.gauges.kv_peak` is the
      highest of a run.
    """

    ticket: Ticket
    reply: Any
    cost: Cost
    failure: Failure | None = None
    exact: bool = True
    kv: int = 0


Item = Progress | Paused | Settled


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


class Pausing(Backend, Protocol):
    """A backend with capability `pause`: its `Sample`s may be paid in slices.

    `submit` hands over the whole request, but `ticket.bound` may pay for less output than the request may have
    (`max_tokens`, or the context where that is None). When that much has been written and the request is not at its
    end, the backend reports `Paused(ticket)`, once, and works on it no more until `resume`; it need not keep its keys
    and values, only what it takes to go on with the same text: reading them again is its own cost, `recomputed`. Where
    what was paid for is all the request may have, it settles as ever, with finish "length".

    - Look at `ticket.bound` when the output that it paid for is used up, not once at `submit`: it may have grown.
    - What a paused request writes does not depend on where it was paused.
    - It gives back its room: `room()` does not count it, and `resume` comes only into room.
    - `cancel` of a paused ticket: its `Settled` comes as for any other, without `resume`.
    - `bound` prices slices: it is asked for the same request with another `max_tokens`, also while the ticket is in
      flight. By how much two such bounds differ may not depend on what is held.
    """

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        """Go on: `ticket.bound` has grown, or `request` may have less than before.

        `request` takes the place of the one submitted and differs in `max_tokens` only. If that is no more than what
        is written already, the request settles with finish "length" at the next step.
        """
        ...
