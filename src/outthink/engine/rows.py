"""The decoder: rows that each draw one token per step. Rows come and go at any step; those in use stay together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from outthink.core.monitor import Force, Halt
from outthink.core.request import Sample
from outthink.engine.cache import Block, Cache
from outthink.engine.jobs import Job
from outthink.engine.runner import Runner
from outthink.engine.sampler import draw, uniforms
from outthink.engine.stops import Stops, StopTables
from outthink.engine.store import Node
from outthink.engine.vocabulary import Vocabulary


class Ended(NamedTuple):
    """A row that has stopped: what it wrote, why, and what was computed of it."""

    job: Job
    finish: str
    stop: str | None
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    block: Block
    ready: int
    hidden: Tensor | None


class Rows:
    """Everything that is touched per token lives in arrays over rows; Python looks only at rows that may stop."""

    def __init__(self, runner: Runner, vocabulary: Vocabulary, *, rows: int, context: int, end: int | None) -> None:
        self._runner, self._vocabulary, self._end = runner, vocabulary, -1 if end is None else end
        self._cache = Cache(runner.config, rows=rows, capacity=context, dtype=runner.dtype)
        self.jobs: list[Job] = []
        self._fed = 0  # rows whose last token goes through the model at the next step; those behind them are new
        self._fresh: list[Tensor] = []
        self._numbers = np.zeros((7, rows), dtype=np.int64)
        self._last, self._length, self._drawn, self._place, self._limit, self._table, self._look = self._numbers
        self._seed = np.zeros(rows, dtype=np.uint64)
        self._knobs = np.zeros((3, rows), dtype=np.float32)  # temperature, top_p, min_p
        self._wants = np.zeros(rows, dtype=bool)
        self._history = np.zeros((rows, context), dtype=np.int32)
        self._logprobs = np.zeros((rows, context), dtype=np.float32)
        self._stops = Stops(vocabulary)
        self._tables = StopTables(self._stops, size=vocabulary.size)

    @property
    def free(self) -> int:
        return self._cache.rows - len(self.jobs)

    def admit(self, jobs: Sequence[Job], path: Sequence[Node]) -> None:
        """Give each of `jobs`, which all continue `path`, a row."""
        first, last = len(self.jobs), len(self.jobs) + len(jobs)
        at = 0
        for node in path:
            assert node.block is not None
            self._cache.write(first, last, at=at, block=node.block, count=node.ready)
            at += node.ready
        assert path[-1].hidden is not None
        for row, job in enumerate(jobs, first):
            request = job.request
            assert isinstance(request, Sample)
            job.row = row
            self.jobs.append(job)
            self._fresh.append(path[-1].hidden)
            look = job.watch is not None or request.hidden
            table = self._tables.index(request.stop, used=self._table[:row])
            self._numbers[:, row] = path[-1].tokens[-1], at, 0, 0, job.limit, table, look
            self._seed[row] = request.seed & (2**64 - 1)
            self._knobs[:, row] = request.temperature, request.top_p, request.min_p
            self._wants[row] = request.logprobs or job.watch is not None

    def step(self) -> list[Ended]:
        """Draw a token in every row; return the rows that stop with it, which are free again."""
        count = len(self.jobs)
        if not count:
            return []
        parts = list(self._fresh)
        if self._fed:
            tokens, places = (torch.from_numpy(array[: self._fed]) for array in (self._last, self._length))
            known = self._runner.extend(self._cache, tokens[:, None], places - 1)[:, 0]
            hidden = torch.cat([known, torch.stack(parts)]) if parts else known
        else:
            hidden = torch.stack(parts)
        self._fresh, self._fed = [], count
        logits = self._runner.logits(hidden)
        noise = torch.from_numpy(uniforms(self._seed[:count], self._place[:count]))
        knobs = torch.from_numpy(self._knobs[:, :count])
        new = draw(logits, noise, temperature=knobs[0], top_p=knobs[1], min_p=knobs[2]).numpy()
        watched = np.flatnonzero(self._look[:count]).tolist()
        for row in watched:
            watch = self.jobs[row].watch
            if watch is not None and watch.forced:
                new[row] = watch.forced.popleft()
        every = np.arange(count)
        if self._wants[:count].any():
            chances = logits.log_softmax(-1)[torch.from_numpy(every), torch.from_numpy(new)]
            self._logprobs[every, self._drawn[:count]] = chances.numpy()
        for row in watched:
            self._remember(row, hidden[row])
        self._history[every, self._drawn[:count]] = new
        self._place[:count] += 1
        going = new != self._end
        self._last[:count] = np.where(going, new, self._last[:count])
        self._drawn[:count] += going
        self._length[:count] += going
        stops = self._tables.tables[self._table[:count], new]
        may_end = ~going | (self._place[:count] >= self._limit[:count]) | stops | (self._look[:count] > 0)
        ended = []
        for row in np.flatnonzero(may_end)[::-1]:  # from the back, because a freed row is filled by the last one
            end = self._ending(int(row), going[row], stops[row], hidden[row])
            if end is not None:
                ended.append(end)
                self._free(int(row))
        return ended

    def stop(self, job: Job) -> int:
        """End the row of `job` now; return the number of tokens that it had drawn."""
        generated = int(self._place[job.row]) - (job.closing is not None)
        self._free(job.row)
        return generated

    def _remember(self, row: int, hidden: Tensor) -> None:
        job, drawn = self.jobs[row], int(self._drawn[row])
        assert isinstance(job.request, Sample)
        if job.request.hidden and len(job.hidden) < drawn:
            job.hidden.append(hidden.clone())

    def _ending(self, row: int, going: bool, maybe: bool, hidden: Tensor) -> Ended | None:
        """Return how a row ends with its newest token, None if it goes on."""
        job, drawn = self.jobs[row], int(self._drawn[row])
        if job.closing is not None:  # the token drawn after its end only served to see the last hidden state
            self._drawn[row] -= going
            job.generated = int(self._place[row]) - 1
            return self._ended(row, *job.closing, back=0, computed=drawn - going, hidden=hidden)
        job.generated = int(self._place[row])
        history = self._history[row, :drawn]
        request = job.request
        assert isinstance(request, Sample)
        stop = self._stops.found(history.tolist(), request.stop) if maybe else None
        reason = "stop" if stop else "end" if not going else None
        back = 0
        if job.watch is not None and stop is None:
            token = int(history[-1]) if going else self._end
            place = drawn - 1 if going else drawn
            try:
                action = job.watch.see(self._vocabulary.text([token]), float(self._logprobs[row, place]))
            except Exception as error:  # a rule that somebody else wrote: its request fails, the others go on
                job.error, action = error, Halt()
            if isinstance(action, Halt):
                reason, back = "monitor", min(action.back, drawn)
            elif isinstance(action, Force) and job.watch.forced:
                reason = None
        if reason is None and job.generated >= job.limit:
            reason = "length"
        if reason is None:
            return None
        if request.hidden and going and not back and job.error is None:
            job.closing = (reason, stop)
            return None
        computed = drawn if not going else drawn - 1
        return self._ended(row, reason, stop, back=back, computed=computed, hidden=None if going or back else hidden)

    def _ended(
        self, row: int, finish: str, stop: str | None, *, back: int, computed: int, hidden: Tensor | None
    ) -> Ended:
        job, count = self.jobs[row], int(self._drawn[row]) - back
        assert isinstance(job.request, Sample)
        ready = min(count, computed)
        block = Block.empty(self._runner.config, count, self._runner.dtype)
        self._cache.read(row, job.link.end, into=block, at=0, count=ready)
        logprobs = tuple(self._logprobs[row, :count].tolist()) if job.request.logprobs else None
        tokens = tuple(self._history[row, :count].tolist())
        return Ended(job, finish, stop, tokens, logprobs, block, ready, None if hidden is None else hidden.clone())

    def _free(self, row: int) -> None:
        last = len(self.jobs) - 1
        self.jobs[row].row = -1
        if row != last:
            self._cache.move(last, row, length=int(self._length[last]))
            drawn = self._drawn[last]
            self._numbers[:, row], self._knobs[:, row] = self._numbers[:, last], self._knobs[:, last]
            self._seed[row], self._wants[row] = self._seed[last], self._wants[last]
            self._history[row, :drawn] = self._history[last, :drawn]
            self._logprobs[row, :drawn] = self._logprobs[last, :drawn]
            self.jobs[row] = self.jobs[last]
            self.jobs[row].row = row
        self.jobs.pop()
        self._fed = len(self.jobs)
