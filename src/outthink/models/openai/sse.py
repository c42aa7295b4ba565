"""Server-sent events: bytes in pieces of any size in, the data of whole events out."""

from __future__ import annotations

from collections.abc import Iterator

LONGEST = 16 * 2**20
"""Bytes one event may have. A server that never ends a line must not fill the memory."""


class EventParser:
    """Takes the bytes of an event stream as they come. Lines end in LF, CRLF or CR; a cut may fall anywhere.

    Bytes are decoded only when their line is whole, so a cut inside a UTF-8 sequence does no harm; what is not UTF-8
    becomes U+FFFD. Comments (`: keep-alive`) and other fields (`event`, `id`, `retry`) are dropped.
    """

    __slots__ = ("_after_cr", "_bytes", "_data")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of every event that `chunk` completes, in order; lines of one event are joined by LF.

        Raises ValueError if an event grows beyond LONGEST bytes.
        """
        self._bytes += chunk
        events = []
        for line in self._lines():
            if line:
                self._field(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        if len(self._bytes) + sum(map(len, self._data)) > LONGEST:
            raise ValueError(f"an event of more than {LONGEST} bytes")
        return events

    def close(self) -> list[str]:
        """Return the last event if the stream ended without the empty line that should follow it."""
        self._field(bytes(self._bytes))
        self._bytes.clear()
        events, self._data = ["\n".join(self._data)] if self._data else [], []
        return events

    def _lines(self) -> Iterator[bytes]:
        if self._after_cr and self._bytes:
            self._after_cr = False
            if self._bytes[0] == 10:  # the LF of a CRLF that was cut in two
                del self._bytes[0]
        start = 0
        while True:
            ends = [at for at in (self._bytes.find(b"\n", start), self._bytes.find(b"\r", start)) if at >= 0]
            if not ends:
                break
            end = min(ends)
            line = bytes(self._bytes[start:end])
            start = end + 1
            if self._bytes[end] == 13:
                if start == len(self._bytes):
                    self._after_cr = True
                elif self._bytes[start] == 10:
                    start += 1
            yield line
        del self._bytes[:start]

    def _field(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
