"""Rules that ride inside a `Sample`: what a backend does after every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Go:
    """Continue."""


@dataclass(frozen=True, slots=True)
class Halt:
    """End the sample here; `back` tokens are taken off its end (they stay paid for)."""

    back: int = 0


@dataclass(frozen=True, slots=True)
class Force:
    """Write this text next, whatever the model would say (budget forcing). Its tokens count as output."""

    text: str


GO = Go()
Action = Go | Halt | Force


class Monitor(Protocol):
    """A pure rule, run by the backend at every token (every chunk, where a server streams chunks).

    It must be frozen and hashable; what it remembers is the value that `step` returns. A backend that cannot run it
    refuses the request before anything is spent (capabilities `monitor`, and `force` for `Force`).
    """

    def start(self) -> Any:
        """Return the first memory."""
        ...

    def step(self, memory: Any, text: str, logprob: float | None) -> tuple[Any, Action]:
        """Return the next memory and what to do after the token whose text and log-probability are given."""
        ...
