"""Golden traces: written with --update, compared without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outthink.core.runtime import Runtime
from outthink.core.trace import Trace
from outthink.testing.golden import compare, lines_of
from outthink.testing.toy_world import MODEL, ToyReward, ToySpace, best_of_n, toy_backends

pytest_plugins = ["pytester"]


def run(seed: int = 0, **options: Any) -> Any:
    return Runtime(toy_backends(steps=2, tokens=4)).run(best_of_n(ToySpace(), ToyReward(), n=2, seed=seed), **options)


def test_the_lines_of_a_run_do_not_change_with_time() -> None:
    assert lines_of(run()) == lines_of(run()) != lines_of(run(1))
    assert MODEL in lines_of(run())[0] and "seconds" not in "".join(lines_of(run()))
    assert lines_of(run().trace) == lines_of(run())[:-1]


def test_without_events_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="trace=None"):
        lines_of(run(trace=None))
    assert lines_of(Trace()) == []


def test_a_file_is_written_compared_and_its_difference_shown(tmp_path: Path) -> None:
    path = tmp_path / "golden" / "x.jsonl"
    with pytest.raises(AssertionError, match="--update"):
        compare(path, ["a"], update=False)
    compare(path, ["a", "b"], update=True)
    compare(path, ["a", "b"], update=False)
    with pytest.raises(AssertionError, match=r"(?s)differs.*-b.*\+c"):
        compare(path, ["a", "c"], update=False)


def test_the_fixture_writes_beside_the_test_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        from outthink.core.trace import Decision, Trace
        def test_it(golden):
            golden("one", Trace({}, [Decision(0, "m", "note", {"x": 1})]))
        """
    )
    plugin = ("-p", "outthink.testing.golden", "-p", "no:cacheprovider")
    assert pytester.runpytest_inprocess(*plugin).parseoutcomes() == {"failed": 1}
    assert pytester.runpytest_inprocess(*plugin, "--update").parseoutcomes() == {"passed": 1}
    assert (pytester.path / "golden" / "one.jsonl").read_text().count("\n") == 1
    assert pytester.runpytest_inprocess(*plugin).parseoutcomes() == {"passed": 1}
