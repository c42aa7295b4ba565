"""The demo: every method within every budget, half of them from one pool."""

import pytest

import outthink as ot
from outthink.experiments import demo as showing

pytest.importorskip("torch")


def test_it_compares_everything_and_replaces_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(showing, "BUDGETS", ("200", "500"))
    out = tmp_path / "demo"
    first = showing.demo(limit=3, out=out)
    again = showing.demo(limit=3, out=out)
    assert [(c.key, c.answer) for c in sorted(first.cells, key=lambda c: c.key)] == [
        (c.key, c.answer) for c in sorted(again.cells, key=lambda c: c.key)
    ]
    assert len(first.cells) == 3 * len(showing.METHODS) * 2 and not first.failed
    assert {c.method for c in first.cells if c.pooled} == set(showing.POOLED)
    assert all(c.cost.tokens <= int(c.budget.split()[0]) for c in first.cells)
    assert (out / "plot.png").is_file() and "replayed samples" in (out / "report.html").read_text()


def test_it_never_deletes_what_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ot.InvalidInput, match="something else than a comparison"):
        showing.demo(limit=1, out=tmp_path)
    assert (tmp_path / "thesis.tex").exists()
