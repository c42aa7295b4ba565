"""Errors for people: one paragraph on stderr, and the exit code that goes with it."""

from __future__ import annotations

import sys
from textwrap import fill

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


def status_of(error: BaseException) -> int | None:
    """Return the exit code of an expected error, None for a mistake in the program (its traceback is then wanted)."""
    from outthink.core.errors import InvalidInput, OutthinkError, Unsupported

    if isinstance(error, InvalidInput | Unsupported):
        return USAGE
    if isinstance(error, OutthinkError):
        return FAILURE
    if isinstance(error, OSError):
        return FAILURE
    # The engine's own error: importing it here to ask would load torch.
    if any(kind.__name__ == "CheckpointError" for kind in type(error).__mro__):
        return FAILURE
    return None


def paragraph(message: str) -> None:
    """Write `message` to stderr as one paragraph that begins with "error:"; at a terminal it is wrapped."""
    text = "error: " + " ".join(message.split())
    if sys.stderr.isatty():
        text = fill(text, width=100, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)
