"""The step: who computes, who draws, who is let in, and who gives way when memory is short.

Every request has tokens that are known and tokens that are computed.  A step gives each of the rows its one missing
token and the others as many of theirs as fit, so a long prompt read in chunks, a prefix that is there already, going on
after a pause and going on from another's text are the same thing (as in vLLM's scheduler, Sarathi's batches).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice

import numpy as np
import torch

from outthink.core.request import Sample
from outthink.engine.batch import compute
from outthink.engine.decoder import Decoder, Ended
from outthink.engine.endings import Endings
from outthink.engine.forest import Forest
from outthink.engine.jobs import Event, Finished, Job, Waits
from outthink.engine.pages import PAGE
from outthink.engine.policies import Policy, first_come
from outthink.engine.prefill import Prefill, ready
from outthink.engine.rows import Rows
from outthink.engine.runner import Runner


class Scheduler:
    """Jobs wait (`samples`, `scores`), have a row, or are paused; a job is in one place at a time."""

    def __init__(
        self, runner: Runner, forest: Forest, *, rows: Rows, decoder: Decoder, endings: Endings, step_tokens: int,
        policy: Policy, whole: int = 0,
    ) -> None:  # fmt: skip
        """whole: 0, or the tokens of the longest prompt: then rows wait while there are prompts to read."""
        self._runner, self._forest, self._rows, self._decoder, self._endings = runner, forest, rows, decoder, endings
        self._prefill = Prefill(runner, forest)
        self._tokens, self._whole, self._policy = step_tokens, whole, policy
        self._samples: dict[Hashable, Job] = {}
        self._scores: dict[Hashable, Job] = {}
        self.paused: dict[Hashable, Job] = {}
        self.computed = 0

    def add(self, job: Job) -> None:
        (self._samples if isinstance(job.request, Sample) else self._scores)[job.key] = job

    def resume(self, job: Job) -> Finished | None:
        """Let a paused job wait for a row again; return its end if it may draw nothing more."""
        del self.paused[job.key]
        if job.generated < job.limit:
            self._samples[job.key] = job
            return None
        return self._endings.at_rest(job)

    def drop(self, job: Job) -> Finished:
        """Take a job out, wherever it is."""
        for place in (self._samples, self._scores, self.paused):
            place.pop(job.key, None)
        if job.row >= 0:
            job.generated = int(self._rows.place[job.row]) - (job.closing is not None)
            self._forest.release_branch(self._rows.leave(job.row)[1])
        return self._endings.cancelled(job)

    def step(self) -> list[Event]:
        """Do one step; return what happened."""
        self._make_room()
        going = self._rows.going()
        scores = list(islice(self._ordered(self._scores), 2 * (self._rows.free + len(self._rows.jobs))))
        samples = list(islice(self._ordered(self._samples), self._rows.free))
        waiting = [self._located(job) for job in (*scores, *samples)]
        chunks = self._prefill.plan(waiting, tokens=max(PAGE, self._tokens - len(going), self._whole))
        if self._whole and chunks:
            going = going[:0]
        events: list[Event] = []
        hidden = None
        if len(going) or chunks:
            hidden = compute(self._runner, self._forest.pages, self._rows, going, chunks)
            at = len(going)
            for chunk in chunks:
                count = chunk.end - chunk.start
                self._prefill.settle(chunk, hidden[at : at + count])
                at += count
            self.computed += at
        elif waiting and not any(map(ready, waiting)):
            self._let_go([*waiting[1:], *self.paused.values()])
        for job in scores:
            if ready(job):
                del self._scores[job.key]
                events.append(self._endings.scored(job))
        for job in samples:
            if ready(job):
                del self._samples[job.key]
                self._rows.admit(job, job.node.ends[len(job.node.tokens)])
                self._release(job)
        fresh = list(self._rows.fresh.values())
        parts = [hidden[: len(going)]] if hidden is not None and len(going) else []
        rows = np.concatenate([going, np.array(self._rows.start(), dtype=np.int64)])
        if len(rows):
            parts += [torch.stack(fresh)] if fresh else []
            for event in self._decoder.draw(rows, torch.cat(parts)):
                events.append(self._ended(event) if isinstance(event, Ended) else event)
                if isinstance(event, Waits):
                    self._pause(event.key)
        return events

    def _ordered(self, jobs: dict[Hashable, Job]) -> Iterable[Job]:
        """Return waiting jobs in the order in which they are served; as they came is how they stand."""
        if self._policy is first_come:
            return jobs.values()
        return sorted(map(self._located, jobs.values()), key=self._policy)

    def _located(self, job: Job) -> Job:
        """See that the job's node exists: one that nobody held or named is gone with the step."""
        if job.node.parent is None:
            job.node = self._forest.path((*job.link.whole(), *job.rest))[-1]
        return job

    def _ended(self, ended: Ended) -> Finished:
        job, branch = self._rows.leave(ended.row)
        return self._endings.drawn(job, branch, ended, self._rows)

    def _make_room(self) -> None:
        """Give every row the page that its next token needs, taking memory from whoever can best do without."""
        poor = self._rows.grow()
        while poor:
            if not self._let_go([*self._samples.values(), *self._scores.values(), *self.paused.values()]):
                last = max(self._rows.jobs.values(), key=self._policy)
                self._samples = {last.key: last} | self._samples
                self._retire(last, keep=False)
            poor = self._rows.grow()

    def _let_go(self, jobs: Iterable[Job]) -> bool:
        """Let what jobs without a row have computed be evicted; return whether there was anything."""
        held = [job for job in jobs if job.held]
        for job in held:
            self._release(job)
        return bool(held)

    def _release(self, job: Job) -> None:
        if job.held:
            self._forest.release(job.node)
            job.held = False

    def _pause(self, key: Hashable) -> None:
        job = next(job for job in self._rows.jobs.values() if job.key == key)
        self._retire(job, keep=True)
        self.paused[key] = job

    def _retire(self, job: Job, *, keep: bool) -> None:
        """Take the job's row, and `keep` what it has computed; it goes on from its tokens as if they were a prompt."""
        row, rows = job.row, self._rows
        drawn, fresh = int(rows.drawn[row]), row in rows.fresh
        known, ready = len(job.rest), int(rows.length[row]) - (not fresh)
        job.rest, job.logprobs = rows.history[row, :drawn].tolist(), rows.logprobs[row, :drawn].tolist()
        job.generated = int(rows.place[row])
        _, branch = rows.leave(row)
        if not keep:
            self._forest.release_branch(branch)
            job.node = self._forest.path((*job.link.whole(), *job.rest))[-1]
            return
        job.node = self._forest.publish(branch, tuple(job.rest[known:]), ready=ready)[-1]
        self._forest.hold(job.node)
        job.held = True
