"""Which queries read which pages together: the levels of the tree that the rows of a batch form.

Rows that begin with the same pages may read them once for all (Hydragen: Juravsky et al. 2024, section 3), at the price
of one more partial result per row to be merged.  A tree of any shape is taken level by level, and a level that does not
pay is left to its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MERGE = 2.0
"""What going on from a partial result costs a query, in page reads: 64 rows that share two pages break even."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Attention as tasks [n, 5] of int32: first row, last row (exclusive), row of the table, first page, last page.

    phases [p + 1] of int32: where each phase of tasks begins, and their end. Tasks of one phase share no row.
    """

    tasks: np.ndarray
    phases: np.ndarray

    def pages_read(self, pages: np.ndarray) -> int:
        """Return how many pages are read for queries that see `pages` [n] pages each; a shared one counts once."""
        most = np.array([pages[first:last].max() for first, last in self.tasks[:, :2].tolist()], dtype=np.int64)
        return int((np.minimum(self.tasks[:, 4], most) - self.tasks[:, 3]).clip(min=0).sum())


def common(table: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return how many leading pages each row has in common with the next [rows - 1].

    Args:
      table: [rows, columns], the pages of each row in order.
      shared: [rows], how many of its leading pages a row may share; those behind are its own.
    """
    most = np.minimum(shared[:-1], shared[1:])
    width = int(most.max(initial=0))
    same = np.ones((len(most), width + 1), dtype=bool)
    same[:, :width] = table[:-1, :width] == table[1:, :width]
    same[:, width] = False
    return np.minimum(same.argmin(1), most)


def ordered(table: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return an order of the rows [rows] in which those with a common beginning are neighbours; ties keep theirs."""
    width = int(shared.max(initial=0))
    if not width or len(table) < 2:
        return np.arange(len(table))
    keys = np.where(np.arange(width) < shared[:, None], table[:, :width], -1)
    keys = keys[:, (keys != keys[0]).any(0)]  # a long prompt that all have decides nothing, and sorting by it is slow
    return np.lexsort(keys.T[::-1]) if keys.size else np.arange(len(table))


def plan(table: np.ndarray, shared: np.ndarray, *, group: int, share: bool = True) -> Plan:
    """Return the tasks of rows in this order, row i reading row i of the table.

    A level is used where it saves more page reads than it costs merges.  The last page of a task that ends with its row
    is the number of columns: what is seen ends it.

    Args:
      table, shared: as for `common`; rows with a common beginning must be neighbours.
      group: queries per row and key head.
      share: False gives every row a task of its own (each row's sums are then the same in any company).
    """
    rows, columns = table.shape
    begun = np.zeros(rows, dtype=np.int32)
    phase = np.zeros(rows, dtype=np.int32)
    levels: list[tuple[int, int, int, int, int, int]] = []
    limits = common(table, shared) if share and rows > 1 else np.zeros(max(0, rows - 1), dtype=np.int64)
    waiting = [(0, rows, 0, 0)] if limits.any() else []
    while waiting:
        first, last, start, depth = waiting.pop()
        end = int(limits[first : last - 1].min())
        if (last - first - 1) * (end - start) > (last - first) * group * MERGE:
            levels.append((depth, first, last, first, start, end))
            start, depth = end, depth + 1
            begun[first:last], phase[first:last] = start, depth
        cuts = [first, *(first + 1 + np.flatnonzero(limits[first : last - 1] == end)).tolist(), last]
        waiting += [(a, b, start, depth) for a, b in pairwise(cuts) if b - a > 1]
    own = np.arange(rows, dtype=np.int32)
    tasks = np.stack([phase, own, own + 1, own, begun, np.full(rows, columns, dtype=np.int32)], 1)
    if levels:
        tasks = np.concatenate([np.array(levels, dtype=np.int32), tasks])
        tasks = tasks[np.argsort(tasks[:, 0], kind="stable")]
    phases = np.searchsorted(tasks[:, 0], np.arange(int(tasks[:, 0].max(initial=0)) + 2))
    return Plan(np.ascontiguousarray(tasks[:, 1:], dtype=np.int32), phases.astype(np.int32))
