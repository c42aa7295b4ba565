"""Levels: who reads which pages together."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.engine.attention import attend
from outthink.engine.levels import common, ordered, plan
from outthink.engine.pages import PAGE


def table(*rows):
    width = max(map(len, rows))
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], dtype=np.int32)


def counts(*numbers):
    return np.array(numbers, dtype=np.int64)


def tasks(made):
    """The tasks of each phase, as tuples, by their first row."""
    ends = made.phases.tolist()
    return [sorted(map(tuple, made.tasks[a:b].tolist())) for a, b in pairwise(ends)]


@pytest.mark.parametrize(("rows", "shared", "expected"), [
    ([[1, 2, 3], [1, 2, 4]], [3, 3], [2]),
    ([[1, 2, 3], [1, 2, 3]], [2, 3], [2]),  # the third page of the first is its own
    ([[1, 2], [3, 2]], [2, 2], [0]),
    ([[1, 2], [1, 2], [1, 2]], [2, 0, 2], [0, 0]),
    ([[7]], [1], []),
])  # fmt: skip
def test_common_beginnings_by_hand(rows, shared, expected):
    assert common(table(*rows), counts(*shared)).tolist() == expected


def test_rows_with_a_common_beginning_become_neighbours_and_ties_keep_their_order():
    rows = table([5, 1], [2, 3], [5, 9], [2, 3], [5, 1])
    assert ordered(rows, counts(2, 2, 2, 2, 2)).tolist() == [1, 3, 0, 4, 2]
    assert ordered(rows, counts(0, 0, 0, 0, 0)).tolist() == [0, 1, 2, 3, 4]
    assert ordered(rows[:1], counts(2)).tolist() == [0]
    assert ordered(np.zeros((0, 2), dtype=np.int32), counts()).tolist() == []


def test_a_level_is_used_where_it_pays():
    """Eight rows share four pages: 7 * 4 reads saved, 8 * 1 * 2 spent.  Two rows that share two more do not pay."""
    rows = table(*([1, 2, 3, 4, 10, 11, 20 + i] if i < 2 else [1, 2, 3, 4, 30 + i] for i in range(8)))
    made = plan(rows, counts(6, 6, *[4] * 6), group=1)
    assert tasks(made) == [[(0, 8, 0, 0, 4)], [(i, i + 1, i, 4, 7) for i in range(8)]]
    assert made.pages_read(np.array([7, 7, 5, 5, 5, 5, 5, 5])) == 4 + 2 * 3 + 6
    four = plan(rows, counts(6, 6, *[4] * 6), group=4)  # four times the merges: 28 < 64
    assert tasks(four) == [[(i, i + 1, i, 0, 7) for i in range(8)]]


def test_levels_below_levels():
    """Two families of ten, each with six pages of its own below six that all share."""
    rows = table(*([*range(6), *range(100 * f, 100 * f + 6), 900 + 10 * f + i] for f in (1, 2) for i in range(10)))
    made = plan(rows, counts(*[12] * 20), group=1)
    assert tasks(made) == [
        [(0, 20, 0, 0, 6)], [(0, 10, 0, 6, 12), (10, 20, 10, 6, 12)], [(i, i + 1, i, 12, 13) for i in range(20)],
    ]  # fmt: skip
    assert made.pages_read(np.full(20, 13)) == 6 + 2 * 6 + 20, "Hydragen: the sum of n_l * P_l over the levels"


def test_without_sharing_every_row_reads_all_of_its_own():
    rows = table(*[[1, 2, 3, 4]] * 5)
    made = plan(rows, counts(*[4] * 5), group=1, share=False)
    assert tasks(made) == [[(i, i + 1, i, 0, 4) for i in range(5)]] and made.pages_read(np.full(5, 4)) == 20


def test_no_rows_no_tasks():
    made = plan(np.zeros((0, 3), dtype=np.int32), counts(), group=1)
    assert len(made.tasks) == 0 and made.pages_read(np.zeros(0, dtype=np.int64)) == 0


@st.composite
def trees(draw):
    """Rows of pages that form a tree, in order; how many pages of each may be shared, and how many are seen."""
    branching = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 7)), min_size=1, max_size=4))
    fresh = iter(range(1, 100_000))
    rows = [[]]
    for width, length in branching:
        rows = [
            [*row, *piece]
            for row in rows
            for piece in [[next(fresh) for _ in range(length)] for _ in range(draw(st.integers(1, width)))]
        ]
    rows = draw(st.permutations(rows[:40]))
    shared = np.array([draw(st.integers(max(0, len(row) - 3), len(row))) for row in rows])
    rows = [row + [next(fresh) for _ in range(draw(st.integers(1, 3)))] for row in rows]
    pages, seen = table(*rows), np.array([len(row) for row in rows])
    order = ordered(pages, shared)
    return pages[order], shared[order], seen[order], draw(st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=120, deadline=None)
@given(trees(), st.booleans())
def test_every_page_of_every_row_is_read_exactly_once(tree, share):
    pages, shared, seen, group = tree
    made = plan(pages, shared, group=group, share=share)
    covered = [[] for _ in seen]
    reads = 0
    for phase in tasks(made):
        busy = set()
        for first, last, row, start, end in phase:
            assert not busy & set(range(first, last)), "tasks of a phase run side by side"
            busy |= set(range(first, last))
            end = min(end, seen[first:last].max())
            reads += max(0, end - start)
            for reader in range(first, last):
                assert (
                    pages[reader, start : min(end, seen[reader])] == pages[row, start : min(end, seen[reader])]
                ).all()
                assert last - first == 1 or end <= shared[reader], "a page that may still be written is its row's own"
                covered[reader] += range(start, min(end, seen[reader]))
    assert covered == [list(range(n)) for n in seen], "in order, too: partial results go on from the front"
    assert made.pages_read(seen) == reads
    assert reads <= seen.sum() and (share or reads == seen.sum())


@settings(max_examples=60, deadline=None)
@given(trees())
def test_neighbours_have_more_in_common_than_strangers(tree):
    """In the order given, what two rows share is the least that those between them share."""
    pages, shared, _, _ = tree
    limits = common(pages, shared)
    for one in range(len(pages)):
        for other in range(one + 1, len(pages)):
            (both,) = common(pages[[one, other]], shared[[one, other]]).tolist()
            assert both == min([*limits[one:other].tolist(), shared[one], shared[other]])


@pytest.mark.parametrize("seed", range(4))
def test_levels_change_no_result(seed):
    """Attention with levels against attention with every row for itself, in float64."""
    rng = np.random.default_rng(seed)
    kv, group, width = 2, int(rng.choice([1, 2])), 16
    rows = [[*range(5), *range(10 + 5 * (i // 4), 15 + 5 * (i // 4)), 60 + i] for i in range(12)]
    pages, shared = table(*rows), np.full(12, 10)
    torch.manual_seed(seed)
    keys = torch.randn(72, kv, width, PAGE, dtype=torch.float64)
    values = torch.randn(72, kv, PAGE, width, dtype=torch.float64)
    queries = torch.randn(12, kv * group, width, dtype=torch.float64)
    seen = torch.from_numpy(rng.integers(10 * PAGE + 1, 11 * PAGE + 1, 12).astype(np.int32))
    made = [plan(pages, shared, group=group, share=share) for share in (True, False)]
    assert len(made[0].phases) > 2 and len(made[1].phases) == 2
    window = int(rng.choice([0, 40]))
    with_levels, without = (
        attend(queries, keys, values, table=torch.from_numpy(pages), seen=seen, plan=one, window=window) for one in made
    )
    assert (with_levels - without).abs().max() < 1e-12
