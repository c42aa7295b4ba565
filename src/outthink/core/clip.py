"""Requests that may be made smaller when the money is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .request import Request, Sample


def clipped(request: Request[Any]) -> Callable[[int], Sample] | None:
    """Return how to cut `request` to fewer tokens, or None if it may not be cut.

    A `Sample` may if it says so: `at_least` below `max_tokens`, or no `max_tokens` at all.
    """
    if not isinstance(request, Sample):
        return None
    if request.max_tokens is not None and (request.at_least is None or request.at_least >= request.max_tokens):
        return None
    sample = request
    return lambda tokens: replace(sample, max_tokens=tokens)
