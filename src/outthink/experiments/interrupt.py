"""Ctrl-C as a request to stop at the next safe moment; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Asked:
    """Whether somebody pressed Ctrl-C."""

    def __init__(self) -> None:
        self.to_stop = False

    def __bool__(self) -> bool:
        return self.to_stop


@contextmanager
def gently(wake: Callable[[], None]) -> Iterator[Asked]:
    """Turn the first SIGINT inside the block into `asked`, and call `wake` so that a sleeping driver looks at it.

    Outside the main thread, where there are no signals, it changes nothing.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.to_stop:
            raise KeyboardInterrupt
        asked.to_stop = True
        wake()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
