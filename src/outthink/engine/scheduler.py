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
from torch import Tensor

from outthink.core.request import Sample, Score
from outthink.engine.ahead import Ahead
from outthink.engine.batch import compute
from outthink.engine.decoder import Decoder, Ended
from outthink.engine.endings import Endings
from outthink.engine.faults import TooLarge, short_of_memory
from outthink.engine.forest import Forest
from outthink.engine.jobs import Event, Finished, Job, Piece, Waits
from outthink.engine.pages import PAGE
from outthink.engine.policies import Policy, first_come
from outthink.engine.prefill import Chunk, Prefill, ready
from outthink.engine.rows import Rows
from outthink.engine.runner import Runner
from outthink.engine.speculative import Drafter


class Scheduler:
    """Jobs wait (`samples`, `scores`), have a row, are paused, or `over`; a job is in one place at a time."""

    def __init__(
        self, runner: Runner, forest: Forest, *, rows: Rows, decoder: Decoder, endings: Endings, step_tokens: int,
        policy: Policy, whole: int = 0, drafter: Drafter | None = None,
    ) -> None:  # fmt: skip
        """whole: 0, or the tokens of the longest prompt: then rows wait while there are prompts to read."""
        self._runner, self._forest, self._rows, self._decoder, self._endings = runner, forest, rows, decoder, endings
        self._prefill = Prefill(runner, forest)
        self._tokens, self._whole, self._policy = step_tokens, whole, policy
        self._samples: dict[Hashable, Job] = {}
        self._scores: dict[Hashable, Job] = {}
        self.paused: dict[Hashable, Job] = {}
        self._over: dict[Hashable, Job] = {}
        self._drafter = drafter
        self._wide = 1 if drafter is None else drafter.width
        self.computed = 0
        self._mixed = False  # whether some of `samples` stand behind others that came later

    def add(self, job: Job) -> None:
        (self._samples if isinstance(job.request, Sample) else self._scores)[job.key] = job

    def waits(self, job: Job) -> bool:
        """Return whether it waits for `resume`."""
        return job.key in self.paused

    def resume(self, job: Job) -> None:
        """Let a paused job wait for a row again, or end with the next step if it may draw nothing more."""
        del self.paused[job.key]
        if job.generated >= job.limit:
            if not (isinstance(job.request, Sample) and job.request.hidden and job.rest):
                self._over[job.key] = job
                return
            job.closing = ("length", None)  # the hidden state after its last token is still to be seen
        self._samples[job.key] = job
        self._mixed = True

    def drop(self, job: Job) -> Finished:
        """Take a job out, wherever it is."""
        for place in (self._samples, self._scores, self.paused, self._over):
            place.pop(job.key, None)
        if job.row >= 0:
            job.generated = int(self._rows.place[job.row])
            self._forest.release_branch(self._rows.leave(job.row)[1])
        return self._endings.cancelled(job)

    def step(self) -> list[Event]:
        """Do one step; return what happened."""
        if self._drafter is not None:
            self._drafter.tick()
        self._make_room()
        events: list[Event] = [self._endings.at_rest(job) for job in self._over.values()]
        self._over.clear()
        going, chunks, waiting = self._planned()
        ahead = None if self._drafter is None else self._drafter.propose(going)
        going, ahead, parts = self._computed(going, chunks, ahead, events)
        events += self._let_in(waiting)
        for event in self._drawn(going, parts, ahead):
            events.append(self._ended(event) if isinstance(event, Ended) else event)
        self._pause({event.key for event in events if isinstance(event, Waits)})
        return events

    def _planned(self) -> tuple[np.ndarray, list[Chunk], list[Job]]:
        """Return the rows that compute their last token, the chunks beside them, and the jobs that are looked at."""
        going, rows = self._rows.going(), self._rows
        scores = islice(self._ordered(self._scores), 2 * (rows.free + len(rows.jobs)))
        waiting = [*scores, *islice(self._ordered(self._samples), rows.free)]
        chunks = self._prefill.plan(waiting, tokens=max(PAGE, self._tokens - len(going) * self._wide, self._whole))
        if self._whole and chunks:
            going = going[:0]
        if not len(going) and not chunks and waiting and not any(map(ready, waiting)):
            others = (*self._scores.values(), *self._samples.values(), *self.paused.values())
            self._let_go(job for job in others if job is not waiting[0])
        return going, chunks, waiting

    def _let_in(self, waiting: Iterable[Job]) -> list[Event]:
        """Reply to scores, and give samples a row, whose paths are computed; return what that ends."""
        events: list[Event] = []
        for job in waiting:
            if job.error is not None or not ready(job):
                continue
            if isinstance(job.request, Score):
                del self._scores[job.key]
                events.append(self._endings.scored(job))
                continue
            del self._samples[job.key]
            if job.closing is None and job.allowed is not None and job.allowed() <= job.generated:
                events.append(self._wait(job))
            else:
                self._rows.admit(job, job.node.ends[len(job.node.tokens)])
                self._release(job)
        return events

    def _pause(self, keys: set[Hashable]) -> None:
        """Take the rows of those that have drawn what they may; who waits without a row is there already."""
        for job in [job for job in self._rows.jobs.values() if job.key in keys] if keys else []:
            self._retire(job, keep=True)
            self._wait(job)

    def _computed(
        self, going: np.ndarray, chunks: list[Chunk], ahead: Ahead | None, events: list[Event]
    ) -> tuple[np.ndarray, Ahead | None, list[Tensor]]:
        """Put the batch through the model; return the rows that draw, what was proposed to them, their hidden states.

        Whoever is too large even alone, or asks for what is no number, fails: its end is added to `events`.
        """
        parts: list[Tensor] = []
        while len(going) or chunks:
            try:
                parts = [compute(self._runner, self._forest.pages, self._rows, going, chunks, ahead)]
                break
            except TooLarge as error:
                found = np.flatnonzero(going == error.job.row).tolist()  # none for a chunk: no row is -1
                if found and ahead is not None and ahead.counts[found[0]] > 1:
                    ahead = ahead.trimmed(found[0])  # without its proposals first
                    continue
                for number in found:
                    going = np.delete(going, number)
                    if ahead is not None:
                        ahead = ahead.part(0, number).beside(ahead.part(number + 1, len(ahead.counts)))
                chunks = [chunk for chunk in chunks if chunk.job is not error.job]
                events.append(self._failed(error.job, error))
        at = drawing = len(going) if ahead is None else len(ahead.tokens)
        for chunk in chunks:
            count = chunk.end - chunk.start
            self._prefill.settle(chunk, parts[0][at : at + count])
            at += count
            if chunk.job.error is not None:
                events.append(self._failed(chunk.job, chunk.job.error))
        self.computed += at
        return going, ahead, [parts[0][:drawing]] if len(going) else []

    def _failed(self, job: Job, error: Exception) -> Finished:
        job.error = error
        return self.drop(job)

    def _wait(self, job: Job) -> Waits:
        """Let a job without a row wait for `resume`, keeping what it has computed while memory allows."""
        if not job.held:
            self._forest.hold(job.node)
            job.held = True
        self.paused[job.key] = job
        return Waits(job.key)

    def _drawn(self, going: np.ndarray, parts: list[Tensor], ahead: Ahead | None) -> list[Ended | Piece | Waits]:
        """Let `going` rows and the fresh ones draw; `parts`: the hidden states that the going ones draw from."""
        state, fresh = self._rows, list(self._rows.fresh)
        if self._drafter is not None and ahead is not None and fresh:
            fresh, first = self._drafter.read(tokens=self._tokens)
            ahead = ahead.beside(first)
        parts = [*parts, *(state.fresh[row][None] for row in fresh)]
        rows = np.concatenate([going, np.array(state.start(fresh), dtype=np.int64)])
        if not len(rows):
            return []
        return self._draw(rows, torch.cat(parts), ahead)

    def _draw(self, rows: np.ndarray, hidden: Tensor, ahead: Ahead | None) -> list[Ended | Piece | Waits]:
        """Let `rows` draw; if memory runs out (logits of a large vocabulary take much), one half after the other."""
        try:
            if ahead is not None and self._drafter is not None:
                return self._decoder.judge(rows, hidden, ahead, self._drafter)
            return self._decoder.draw(rows, hidden)
        except (MemoryError, RuntimeError) as error:
            if not short_of_memory(error):
                raise
            if ahead is not None and len(rows) == 1 and len(ahead.tokens) > 1:
                return self._draw(rows, hidden[:1], ahead.trimmed(0))
            if len(rows) < 2:
                job = self._rows.jobs[int(rows[0])]
                drawn, job.generated = int(self._rows.drawn[job.row]), int(self._rows.place[job.row])
                job.error = TooLarge(job, error)
                return [Ended(job.row, "length", None, drawn, drawn, None)]
        half = place = len(rows) // 2
        first = second = None
        if ahead is not None:
            first, second = ahead.part(0, half), ahead.part(half, len(rows))
            place = len(first.tokens)
        return [*self._draw(rows[:half], hidden[:place], first), *self._draw(rows[half:], hidden[place:], second)]

    def _ordered(self, jobs: dict[Hashable, Job]) -> Iterable[Job]:
        """Return waiting jobs in the order in which they are served."""
        if self._policy is first_come:  # as they came is how they stand
            if jobs is self._samples and self._mixed:
                jobs = self._samples = dict(sorted(jobs.items(), key=lambda item: item[1].number))
                self._mixed = False
            return jobs.values()
        return sorted(jobs.values(), key=self._policy)

    def _ended(self, ended: Ended) -> Finished:
        job, branch = self._rows.leave(ended.row)
        return self._endings.drawn(job, branch, ended, self._rows)

    def _make_room(self) -> None:
        """Give every row the page that its next token needs, taking memory from whoever can best do without."""
        poor = self._rows.grow()
        while poor:
            if not self._let_go([*self._samples.values(), *self._scores.values(), *self.paused.values()]):
                last = max(self._rows.jobs.values(), key=self._policy)
                self._retire(last, keep=False)
                self._samples[last.key], self._mixed = last, True
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
        ready = max(branch.start, ready)  # a row that has only seen its end replaced has nothing new
        job.node = self._forest.publish(branch, tuple(job.rest[known:]), ready=ready)[-1]
