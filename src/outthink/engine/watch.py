"""Running a Monitor beside a row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from outthink.core.errors import InvalidInput
from outthink.core.monitor import Action, Force, Halt, Monitor


class Watch:
    """A monitor with its memory and the tokens that it still forces.

    The monitor sees every token, those it forced too.  It also sees the end of the text, as the empty text: a Force
    there is written in place of the end (budget forcing).  While forced tokens are waiting another Force is ignored.
    """

    def __init__(self, monitor: Monitor, encode: Callable[[str], tuple[int, ...]]) -> None:
        self._monitor, self._encode = monitor, encode
        self.memory: Any = monitor.start()
        self.forced: deque[int] = deque()

    def see(self, text: str, logprob: float) -> Action:
        """Show a token to the monitor; return its action, a Force already queued."""
        self.memory, action = self._monitor.step(self.memory, text, logprob)
        if isinstance(action, Force) and not self.forced:
            tokens = self._encode(action.text)
            if not tokens:
                raise InvalidInput(f"monitor {self._monitor!r} forces {action.text!r}, which has no tokens")
            self.forced.extend(tokens)
        elif isinstance(action, Halt) and action.back < 0:
            raise InvalidInput(f"monitor {self._monitor!r} halts {action.back} tokens back; it must be 0 or more")
        return action
