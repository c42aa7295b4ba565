"""Play a case in this process and print its trace: `python -m outthink.testing.conformance.elsewhere MODULE:NAME`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from ...core.budget import Budget, Limit
from ..golden import lines_of
from .play import MethodCase, play


def cases_of(value: Any) -> list[MethodCase]:
    """Return the case, the cases, or what a function without arguments returns of them."""
    value = value() if callable(value) else value
    return [value] if isinstance(value, MethodCase) else list(value)


def main(importable: str) -> None:
    module, _, name = importable.partition(":")
    for case in cases_of(getattr(import_module(module), name)):
        for budget in (Budget(), Budget((Limit("tokens", 300),))):
            for line in lines_of(play(case, 0, budget).run):
                print(line)


if __name__ == "__main__":
    main(sys.argv[1])
