"""Cells, rows and the folder that keeps them."""

import json

import pytest

from outthink.core.budget import Budget
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.experiments.cells import Cell, grid, rows
from outthink.experiments.folder import open_folder, read_folder
from outthink.experiments.totals import by_role, totals

BUDGETS = [Budget.parse("128"), Budget.parse("1k")]
HEADER = {
    "task": "t",
    "task_digest": "d",
    "model": "m",
    "verifier": None,
    "seed": 0,
    "settings": {},
    "versions": {"p": "1"},
}


def cell(problem="a", method="greedy", budget="128 tokens", *, correct=True, output=10, answer="1"):
    cost = Cost.of("m", calls=1, prompt=5, output=output)
    return Cell(problem, method, budget, answer, correct, 0.5, "finished", cost, 0.25)


def test_whole_small_budgets_come_first():
    keys = grid(["a", "b"], ["x", "y"], BUDGETS)
    assert keys[:4] == [
        ("a", "x", "128 tokens"),
        ("b", "x", "128 tokens"),
        ("a", "y", "128 tokens"),
        ("b", "y", "128 tokens"),
    ]
    assert grid(["a", "b"], ["x", "y"], BUDGETS, done=set(keys[:7])) == keys[7:]


def test_a_row_sums_its_cells_and_shows_the_most_that_one_problem_took():
    cells = [cell("a", output=10), cell("b", output=90, correct=False, answer=None), cell("a", "beam")]
    first, second = rows(cells, task="t", model="m", methods=["greedy", "beam"], budgets=BUDGETS)
    assert list(first) == ["task", "model", "method", "budget", "n", "accuracy", "low", "high", "cost", "seconds"]
    assert (first["n"], first["accuracy"]) == (2, 0.5)
    assert (first["low"], first["high"]) == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert first["cost"]["total"] == {
        "calls": 2,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "output_tokens": 100,
        "tokens": 110,
    }
    assert (first["cost"]["most_tokens"], first["cost"]["unanswered"], first["seconds"]) == (95, 1, 0.5)
    assert second["method"] == "beam"
    assert rows([], task="t", model="m", methods=["x"], budgets=BUDGETS) == []


def test_totals_have_every_named_count_and_roles_add_up():
    cost = Cost({"m": {"calls": 2, "output": 7}, "r": {"calls": 1, "scores": 1, "prompt": 9}})
    assert totals(cost, discarded=3) == {
        "calls": 3, "prompt_tokens": 9, "cached_tokens": 0, "output_tokens": 7, "scores": 1,
        "discarded_tokens": 3, "tokens": 16,
    }  # fmt: skip
    assert by_role({"b": Cost.of("m", output=1), "a": Cost()}) == {"b": {"output_tokens": 1}}


def test_a_folder_keeps_every_cell_and_goes_on(tmp_path):
    with open_folder(tmp_path / "x", HEADER) as folder:
        folder.add(cell("a"))
        folder.add(cell("b"))
    header, cells = read_folder(tmp_path / "x")
    assert (header["task"], cells) == ("t", [cell("a"), cell("b")])
    with pytest.raises(InvalidInput, match="already holds results; add --resume"):
        open_folder(tmp_path / "x", HEADER)
    with open_folder(tmp_path / "x", HEADER, resume=True) as folder:
        assert [c.problem for c in folder.cells] == ["a", "b"]


def test_a_half_line_is_taken_off_and_a_damaged_one_is_named(tmp_path):
    with open_folder(tmp_path / "x", HEADER) as folder:
        folder.add(cell("a"))
    results = tmp_path / "x" / "results.jsonl"
    with open(results, "a") as file:
        file.write('{"problem": "b", "me')
    with open_folder(tmp_path / "x", HEADER, resume=True) as folder:
        assert [c.problem for c in folder.cells] == ["a"]
        folder.add(cell("b"))
    assert [json.loads(line)["problem"] for line in results.read_text().splitlines()] == ["a", "b"]
    results.write_text('{"problem": 3}\n' + results.read_text())
    with pytest.raises(InvalidInput, match=r"results\.jsonl:1: damaged"):
        open_folder(tmp_path / "x", HEADER, resume=True)


@pytest.mark.parametrize("field", ["task", "task_digest", "model", "verifier", "seed", "settings", "versions"])
def test_resuming_with_something_else_says_what_differs(tmp_path, field):
    with open_folder(tmp_path / "x", HEADER) as folder:
        folder.add(cell())
    with pytest.raises(InvalidInput, match=f"its {field.replace('_', ' ')} was .* and is now"):
        open_folder(tmp_path / "x", {**HEADER, field: "other"}, resume=True)
    open_folder(tmp_path / "x", {**HEADER, "methods": ["more"]}, resume=True).close()


def test_a_folder_that_is_a_file_or_no_comparison(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(InvalidInput, match="is a file"):
        open_folder(tmp_path / "f", HEADER)
    with pytest.raises(InvalidInput, match=r"no header\.json"):
        read_folder(tmp_path)
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"header\.json:1: not JSON"):
        read_folder(tmp_path)
