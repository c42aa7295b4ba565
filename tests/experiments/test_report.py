"""Curves, chart, plot and page: the numbers are there, and nothing is fetched from anywhere."""

import re
import xml.etree.ElementTree as xml

import pytest

from outthink.core.errors import Unsupported
from outthink.experiments import plot as plotting
from outthink.experiments.chart import chart
from outthink.experiments.curves import curves, short, spread, ticks
from outthink.experiments.report import best_of, remarks, report


def row(method, budget, accuracy, tokens, **cost):
    more = {"tokens_per_problem": tokens, "most_tokens": int(tokens), "unanswered": 0, "exact": True, "pooled": False}
    return {"task": "t", "model": "m", "method": method, "budget": budget, "n": 9, "accuracy": accuracy,
            "low": accuracy - 0.1, "high": accuracy + 0.1, "cost": {**more, **cost}, "seconds": 1.0}  # fmt: skip


ROWS = [row("greedy", "128 tokens", 0.4, 100.0), row("greedy", "1k tokens", 0.4, 100.0),
        row("beam<&>", "128 tokens", 0.3, 120.0), row("beam<&>", "1k tokens", 0.6, 990.0)]  # fmt: skip


def test_budgets_that_changed_nothing_are_one_point():
    greedy, beam = curves(ROWS)
    assert [p.tokens for p in greedy.points] == [100.0]
    assert [p.tokens for p in beam.points] == [120.0, 990.0]
    assert greedy.colour != beam.colour


def test_ticks_cover_the_range_and_are_few():
    assert ticks(100, 990) == [64, 128, 256, 512, 1024]
    assert ticks(1, 1) == [1, 2]
    assert ticks(10, 10**9)[0] <= 10 and ticks(10, 10**9)[-1] >= 10**9 and len(ticks(10, 10**9)) <= 10


@pytest.mark.parametrize(
    ("n", "text"), [(950, "950"), (1024, "1k"), (4096, "4k"), (1200, "1.2k"), (3_100_000, "3.1M"), (1 << 20, "1M")]
)
def test_counts_are_short(n, text):
    assert short(n) == text


def test_labels_keep_their_order_and_distance():
    moved = spread([5.0, 5.0, 5.1, 50.0], 10)
    assert all(b - a > 9.9 for a, b in zip(sorted(moved), sorted(moved)[1:], strict=False))
    assert moved[3] == max(moved)
    assert spread([], 3) == []


def test_the_chart_is_well_formed_and_names_every_method():
    root = xml.fromstring(chart(curves(ROWS)))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"greedy", "beam<&>", "1k"} <= texts
    assert chart([]) == ""


def test_the_page_opens_offline():
    page = report(ROWS, command="outthink compare t --methods 'a b'", versions={"outthink": "1"}, title="x<y")
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(""", page)
    assert "https:" not in page
    assert "<title>x&lt;y</title>" in page and "beam&lt;&amp;&gt;" in page
    assert "outthink compare t --methods &#x27;a b&#x27;" in page
    assert "60.0%" in page and "990" in page


def test_a_page_of_nothing_says_so():
    assert "Nothing has finished" in report([], command="", versions={}, title="t")


def test_readers_are_told_what_was_replayed_bounded_or_unanswered():
    texts = " ".join(remarks([row("a", "1", 0.5, 1, pooled=True), row("b", "1", 0.5, 1, exact=False, unanswered=4)]))
    assert "a replayed samples" in texts and "upper bound" in texts and "b at 1: 4 of 9" in texts
    assert best_of(ROWS) == {"128 tokens": 0.4, "1k tokens": 0.6}


def test_the_plot_is_a_png(tmp_path):
    pytest.importorskip("matplotlib")
    path = plotting.plot(curves(ROWS), tmp_path / "p.png", title="t")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_without_matplotlib_the_plot_names_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "available", lambda: False)
    with pytest.raises(Unsupported, match=r"pip install 'outthink\[analysis\]'"):
        plotting.plot([], tmp_path / "p.png")
