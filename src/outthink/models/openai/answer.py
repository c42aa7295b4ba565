"""An answer as it grows, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from .failures import Broken, Place
from .wire import Piece


class Answer:
    """What has come so far. `pieces` counts the documents; `logprobs` is None if a piece of text came without.

    `ended`: the server has said all that it had to say.
    """

    __slots__ = ("choices", "ended", "logprobs", "named", "names_stop", "pieces", "reason", "text", "usage")

    def __init__(self) -> None:
        self.text, self.pieces = "", 0
        self.choices = self.ended = False
        self.reason: str | None = None
        self.named: str | None = None
        self.names_stop = False
        self.logprobs: list[tuple[str, float]] | None = []
        self.usage: Any = None

    def add(self, item: Piece, *, place: Place) -> None:
        """Add a piece. Raises Broken if it is an error that came in place of one."""
        if item.usage is not None:
            self.usage = item.usage
        if item.error is not None:
            raise Broken(place.tell(f"the server broke off: {item.error}"), retry=True)
        self.pieces += 1
        self.choices = self.choices or item.choices
        self.text += item.text
        if item.reason is not None:
            self.reason, self.named = item.reason, item.stop
            self.names_stop = item.names_stop
        if item.logprobs is not None and self.logprobs is not None:
            self.logprobs += item.logprobs
        elif item.text:
            self.logprobs = None


async def whole(pieces: AsyncIterator[Piece], *, place: Place) -> Answer:
    """Return the whole answer. Raises Broken if it fails on the way."""
    answer = Answer()
    async with aclosing(pieces) as items:  # type: ignore[type-var]
        async for item in items:
            answer.add(item, place=place)
    return answer
