"""The decoder's rows: branches that each draw one token per step. Rows come and go at any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from outthink.core.request import Sample
from outthink.engine.forest import Forest
from outthink.engine.holdings import Holdings
from outthink.engine.jobs import Job
from outthink.engine.levels import Plan, ordered, plan
from outthink.engine.node import Branch
from outthink.engine.pages import PAGE, OutOfPages, Pages
from outthink.engine.stops import StopTables

_COLD = 1e-30  # temperatures up to here are greedy: logits divided by them would be no numbers


class Rows:
    """Everything that is touched per token lives in arrays over rows; Python looks only at rows where something ends.

    A row keeps its number while it lives.  It is fresh (the hidden state after all its tokens is at hand, and it draws
    from that) or going (its last token goes through the model next, then it draws).
    """

    def __init__(
        self,
        forest: Forest,
        tables: StopTables,
        *,
        rows: int,
        context: int,
        group: int,
        share: bool,
        judges: bool = False,
    ) -> None:
        self._forest, self._tables, self._group, self._share = forest, tables, group, share
        self._holdings = Holdings()
        self._unused = list(range(rows))[::-1]
        self.jobs: dict[int, Job] = {}
        self.branches: dict[int, Branch] = {}
        self.fresh: dict[int, Tensor] = {}
        self.pages = np.zeros((rows, -(-context // PAGE)), dtype=np.int32)
        self.numbers = np.zeros((8, rows), dtype=np.int64)
        self.last, self.length, self.drawn, self.place, self.stop_at, self.table, self.look, self.room = self.numbers
        self.seed = np.zeros(rows, dtype=np.uint64)
        self.knobs = np.zeros((3, rows), dtype=np.float32)  # temperature, top_p, min_p
        self.wants = np.zeros(rows, dtype=bool)
        self.history = np.zeros((rows, context), dtype=np.int32)
        self.logprobs = np.zeros((rows, context), dtype=np.float32)
        self.rewards = np.full((rows, context), np.nan, dtype=np.float32) if judges else None
        self.left: Callable[[int], None] | None = None  # told of every row just before it is freed
        self._going: np.ndarray | None = None
        self._plan: Plan | None = None

    @property
    def memory(self) -> Pages:
        """Where the rows' keys and values are."""
        return self._forest.pages

    @property
    def free(self) -> int:
        return len(self._unused)

    def admit(self, job: Job, hidden: Tensor) -> None:
        """Give `job`, whose path is computed and ends in `hidden`, a row."""
        request, row = job.request, self._unused.pop()
        assert isinstance(request, Sample)
        path = job.node.path()
        branch = self._forest.fork(path)
        self._holdings.enter(job.owner, path)
        table = self._tables.index(request.stop, used=self.table)
        self.jobs[row], self.branches[row], self.fresh[row], job.row = job, branch, hidden, row
        self.pages[row, : len(branch.pages)] = branch.pages
        drawn, end = len(job.rest), job.node.end
        if self.rewards is not None:
            self.rewards[row] = np.nan
        self.history[row, :drawn], self.logprobs[row, :drawn] = job.rest, job.logprobs
        self.numbers[:, row] = job.node.tokens[-1], end, drawn, job.generated, 0, table, 0, end
        self.seed[row] = request.seed & (2**64 - 1)
        self.knobs[:, row] = (request.temperature if request.temperature > _COLD else 0), request.top_p, request.min_p
        self.wants[row] = request.logprobs or job.watch is not None
        self.allow(row)
        self._see(row)

    def allow(self, row: int) -> bool:
        """Look up how far the row may go; return whether it may go on at all."""
        job = self.jobs[row]
        self.stop_at[row] = job.limit if job.allowed is None else min(job.limit, job.allowed())
        return bool(self.place[row] < self.stop_at[row])

    def leave(self, row: int) -> tuple[Job, Branch]:
        """Free the row; whoever asks for that publishes its branch, or releases it."""
        if self.left is not None:
            self.left(row)
        job = self.jobs.pop(row)
        branch = self.branches.pop(row)
        own = len(branch.pages) - branch.shared
        job.pages = max(job.pages, self._holdings.leave(job.owner, branch.path, own))
        job.row, self._going = -1, None
        self.fresh.pop(row, None)
        self._unused.append(row)
        self.table[row] = 0
        return job, branch

    def grow(self) -> list[int]:
        """Make room for the token that each going row has drawn; return the rows for which there is none."""
        going, poor = self.going(), []
        for row in going[self.length[going] > self.room[going]].tolist():
            if not self._extend(row, int(self.length[row])):
                poor.append(row)
        return poor

    def reach(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Make room for so many tokens of each of `rows` as far as there is memory; return for how many there is."""
        for at in np.flatnonzero(lengths > self.room[rows]).tolist():
            self._extend(int(rows[at]), int(lengths[at]))
        return np.minimum(lengths, self.room[rows])

    def _extend(self, row: int, length: int) -> bool:
        """Make room for `length` tokens of a row, in whole pages; return whether there was memory for them."""
        branch, first = self.branches[row], int(self.room[row]) // PAGE
        own = len(branch.pages) - branch.shared
        try:
            self._forest.grow(branch, -(-length // PAGE) * PAGE)
        except OutOfPages:
            return False
        self._holdings.grow(self.jobs[row].owner, len(branch.pages) - branch.shared - own)
        self._see(row)
        self.pages[row, first : len(branch.pages)] = branch.pages[first:]
        self.room[row] = len(branch.pages) * PAGE
        return True

    def _see(self, row: int) -> None:
        """Find out whether every token of the row has to be looked at; asked anew with every page."""
        job = self.jobs[row]
        assert isinstance(job.request, Sample)
        reading = job.watched is not None and job.watched()
        self.look[row] = job.watch is not None or job.request.hidden or reading or job.processor is not None or job.top

    def going(self) -> np.ndarray:
        """Return the rows whose last token goes through the model next, those with common pages side by side."""
        if self._going is None:
            rows = np.array([row for row in self.jobs if row not in self.fresh], dtype=np.int64)
            self._going = rows[ordered(self.pages[rows], self._begun(rows))]
            self._plan = None
        return self._going

    def plan(self, rows: np.ndarray) -> Plan:
        """Return who of `rows`, some of `going` in that order, reads which pages together."""
        if rows is not self._going:
            return plan(self.pages[rows], self._begun(rows), group=self._group, share=self._share)
        if self._plan is None:
            self._plan = plan(self.pages[rows], self._begun(rows), group=self._group, share=self._share)
        return self._plan

    def _begun(self, rows: np.ndarray) -> np.ndarray:
        """Return how many leading pages each row may share; the one behind them is its own, as soon as it writes."""
        return np.array([self.branches[row].start // PAGE for row in rows.tolist()], dtype=np.int64)

    def start(self, rows: Sequence[int] | None = None) -> list[int]:
        """Return the fresh rows (or those of them that are named), which are going from now on."""
        fresh = list(self.fresh if rows is None else rows)
        for row in fresh:
            del self.fresh[row]
            self._going = None
        return fresh
