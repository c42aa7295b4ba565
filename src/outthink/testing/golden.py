"""Golden traces: a run is written down once and compared ever after. A pytest plug-in with the option `--update`.

    def test_best_of_n(golden):
        golden("best_of_n", run)

compares `run` with golden/best_of_n.jsonl beside the test file (or wherever the ini option `golden_dir` says). After a
change that is meant, `pytest --update` writes the files anew; the difference is then read in version control.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from ..core.run import Run
from ..core.trace import Served, Trace

VOLATILE = frozenset({"seconds", "started", "created", "versions", "machine", "commit"})
"""Facts of a header or an event that differ from run to run and are not compared."""


def lines_of(run: Run | Trace) -> list[str]:
    """Return what is compared: one JSON line per event, in order, with texts but without what is volatile.

    A `Run` adds a last line with its outcome. Raises ValueError for a run without a trace.
    """
    trace = run.trace if isinstance(run, Run) else run
    if trace is None:
        raise ValueError("this run was made with trace=None; a golden trace needs its events")
    rows: list[dict[str, Any]] = [_event(event) for event in trace.events]
    if isinstance(run, Run):
        rows.append({
            "stopped": run.stopped, "answer": run.answer, "value": run.value, "cost": run.cost.nonzero(),
            "depth": run.depth, "exact": run.exact, "overrun": run.overrun,
        })  # fmt: skip
    return [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]


def _event(event: Any) -> dict[str, Any]:
    row = {"tick": event.tick, "path": event.path}
    if not isinstance(event, Served):
        return row | {"kind": event.kind, "facts": _plain(event.facts)}
    row |= {"status": event.status, "attempt": event.attempt, "cost": event.cost.nonzero()}
    row |= {"bound": event.bound.nonzero(), "request": _plain(event.request), "reply": _plain(event.reply)}
    return row | ({"message": event.message, "retry": event.retry} if event.message else {})


def _plain(value: Any) -> Any:
    """Return `value` as JSON, the same in every process: floats to 12 digits, prefixes by digest, others by repr."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if str(k) not in VOLATILE}
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    digest = getattr(value, "digest", None)
    if isinstance(digest, bytes):
        return digest.hex()
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        named = {name: _plain(getattr(value, name)) for name in fields}
        return {"is": type(value).__name__} | {k: v for k, v in named.items() if v not in (None, [], False)}
    return repr(value)


def compare(path: Path, lines: Iterable[str], *, update: bool) -> None:
    """Compare `lines` with the file at `path`, or write it if `update`. Raises AssertionError with what differs."""
    text = "".join(f"{line}\n" for line in lines)
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    if not path.exists():
        raise AssertionError(f"there is no golden trace {path}; if the run is right, write it: pytest --update")
    known = path.read_text(encoding="utf-8")
    if known != text:
        diff = list(unified_diff(known.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=1))
        shown = "\n".join(line[:300] for line in diff[:40])
        raise AssertionError(f"{path.name} differs in {len(diff)} lines; if that is meant: pytest --update\n{shown}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("outthink").addoption("--update", action="store_true", help="write golden traces anew")
    parser.addini("golden_dir", "folder of golden traces; empty: `golden` beside the test file", default="")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Run | Trace], None]:
    """Return `check(name, run)`, which compares a run with its golden trace."""
    ini = request.config.getini("golden_dir")
    folder = Path(request.config.rootpath, ini) if ini else request.path.parent / "golden"

    def check(name: str, run: Run | Trace) -> None:
        compare(folder / f"{name}.jsonl", lines_of(run), update=request.config.getoption("--update"))

    return check
