"""The arithmetic of the engine's benchmarks, and that docs/engine.md says what the results say."""

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "engine"
MODULES = [path.stem for path in FOLDER.glob("*.py")]


@pytest.fixture
def scripts(monkeypatch):
    """Import by name from benchmarks/engine, whose modules are gone again afterwards."""
    pytest.importorskip("numpy")
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_rebase_hands_out_every_branch_at_every_level_and_repeats_with_its_seed(scripts):
    rebase = scripts("search").rebase
    plan = rebase(branches=64, levels=8, temperature=0.2, seed=1)

    assert [len(parents) for parents in plan] == [64] * 8
    assert all(max(now) < len(before) for before, now in pairwise(plan))
    assert (
        plan
        == rebase(branches=64, levels=8, temperature=0.2, seed=1)
        != rebase(branches=64, levels=8, temperature=0.2, seed=2)
    )


def test_beam_keeps_as_many_parents_as_it_is_wide(scripts):
    plan = scripts("search").beam(width=4, fan=4, levels=5, seed=1)

    assert [len(set(parents)) for parents in plan] == [1, 4, 4, 4, 4]
    assert {len(parents) for parents in plan} == {16}


def test_a_missing_engine_has_no_rate_and_wins_nothing(scripts):
    assert scripts("many_samples").rates({"missing": "not there"}, 64, 128) == {"missing": "not there"}


def test_a_slow_first_token_does_not_make_decoding_look_fast(scripts):
    rates = scripts("many_samples").rates
    noisy = rates({"first": [1.0, 9.0], "whole": [11.0, 11.0]}, 64, 11)

    assert noisy["decode"] == rates({"first": [1.0], "whole": [11.0]}, 64, 11)["decode"] == 64.0


def test_steps_that_were_not_timed_take_as_long_as_those_that_were(scripts):
    row = scripts("many_samples").rates({"first": [2.0], "whole": [3.0], "steps": 3}, 10, 11)

    assert (row["seconds"], row["steps_timed"]) == (7.0, 3)


def test_pages_count_the_path_once_and_copy_a_page_that_was_begun(scripts):
    pages = scripts("growth").pages

    assert pages({"grows": "batch", "prompt": 1024, "samples": 4}) == 64 + 4 * 2
    assert pages({"grows": "batch", "prompt": 1025, "samples": 4}) == 65 + 4 * 3


def test_page_of_the_engine_has_the_tables_that_the_results_give(scripts):
    tables = scripts("tables")
    text = tables.PAGE.read_text("utf-8")

    assert text == tables.fill(text), "run benchmarks/engine/tables.py"
