"""Progress on stderr, and nothing at all where stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def watching(budget: str) -> Iterator[Callable[[Any], None] | None]:
    """Yield a watcher of a run that shows its tokens so far; None if nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.status import Status

    spent = calls = 0
    shown = 0.0
    with Status("loading", console=Console(stderr=True)) as status:

        def watch(event: Any) -> None:
            nonlocal spent, calls, shown
            cost = getattr(event, "cost", None)
            if cost is None:
                return
            spent, calls = spent + cost.tokens, calls + 1
            if time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                status.update(f"{spent:,} tokens of {budget}, {calls} calls")

        yield watch


@contextmanager
def comparing() -> Iterator[Callable[[Any], None] | None]:
    """Yield a watcher of a comparison: a bar with cells, tokens a second, accuracy so far and the time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    left = TimeRemainingColumn(compact=True)
    columns = (BarColumn(30), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), left, TextColumn("left"))
    shown = 0.0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, facts="loading")

        def watch(progress: Any) -> None:
            nonlocal shown
            if time.monotonic() - shown < 0.1 and progress.done < progress.total:
                return
            shown = time.monotonic()
            bar.update(task, total=progress.total, completed=progress.done, facts=_facts(progress))

        yield watch


def _facts(progress: Any) -> str:
    parts = [f"{progress.rate:,.0f} tokens/s"]
    latest = progress.accuracy
    if latest is not None:
        cell, accuracy = latest
        parts.append(f"{cell.method} at {cell.budget}: {accuracy:.0%}")
    if progress.comparison.failed:
        parts.append(f"{len(progress.comparison.failed)} failed")
    return " · ".join(parts)
