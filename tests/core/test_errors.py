"""Errors say what was given, what is allowed, what to do."""

from __future__ import annotations

import pytest

from outthink.core import errors
from outthink.core.account import Shortfall


def test_an_unknown_name_comes_with_the_closest_and_all() -> None:
    error = errors.unknown("method", "rebas", ["rebase", "beam"])
    assert str(error) == "unknown method 'rebas'. Did you mean 'rebase'? Known: beam, rebase."
    assert "Known: none" in str(errors.unknown("method", "x", []))
    assert isinstance(error, ValueError)


def test_every_error_is_caught_by_the_base() -> None:
    for name in ("OutOfBudget", "Cancelled", "Stuck", "Unsupported", "BackendError", "ReplayMismatch", "InvalidInput"):
        assert issubclass(getattr(errors, name), errors.OutthinkError)
        assert name in (errors.__doc__ or "")


def test_a_refusal_says_what_and_why_when_it_is_read() -> None:
    with pytest.raises(
        errors.OutOfBudget, match=r"'a request' was refused: it may take 7 tokens, and 3 of 10 are left"
    ):
        raise errors.OutOfBudget("a request", Shortfall("tokens", 7, 10, 5, 2))
