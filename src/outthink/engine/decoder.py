"""Decoding: a token for every row that has a hidden state, and what that token ends."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from outthink.core.monitor import Force, Halt
from outthink.core.request import Sample
from outthink.engine.ahead import Ahead
from outthink.engine.faults import NotNumbers, short_of_memory, traced
from outthink.engine.jobs import Job, Piece, Waits
from outthink.engine.rows import Rows
from outthink.engine.runner import Runner
from outthink.engine.sampler import draw, uniforms
from outthink.engine.speculative import Drafter
from outthink.engine.stops import Stops, StopTables
from outthink.engine.vocabulary import Vocabulary


class Ended(NamedTuple):
    """A row that stops: why, how many of its drawn tokens are its draft, and how many of those have keys and values.

    hidden: the hidden state after the draft's last token, where that is known.
    """

    row: int
    finish: str
    stop: str | None
    kept: int
    computed: int
    hidden: Tensor | None


class Decoder:
    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        *,
        rows: Rows,
        stops: Stops,
        tables: StopTables,
        ends: tuple[int, ...],
    ) -> None:
        self._runner, self._vocabulary, self._rows, self._stops, self._tables = runner, vocabulary, rows, stops, tables
        self._end = ends[0] if ends else -1
        self._ends = np.zeros(vocabulary.size, dtype=bool)
        self._ends[list(ends)] = True

    def draw(self, rows: np.ndarray, hidden: Tensor) -> list[Ended | Piece | Waits]:
        """Draw a token in each of `rows` [n] from its hidden state [n, hidden_size]; return what that ends."""
        given, logits = np.full(len(rows), -1, dtype=np.int64), self._runner.logits(hidden)
        self._process(rows, logits, np.arange(len(rows)))
        return self._next(rows, hidden, logits, given)

    def judge(self, rows: np.ndarray, hidden: Tensor, ahead: Ahead, drafter: Drafter) -> list[Ended | Piece | Waits]:
        """Write into each of `rows` what comes of the proposals to it; return what that ends.

        hidden: [places, hidden_size], row after row.  A row takes its tokens one by one: what ends it, or forces
        something else, drops the rest.
        """
        logits = self._runner.logits(hidden)
        self._process(rows, logits, ahead.first)
        tokens, taken = ahead.decided(self._rows, rows, logits, finish=drafter.finish)
        events: list[Ended | Piece | Waits] = []
        first, at, number = ahead.first, np.arange(len(rows)), 0
        while len(at):
            places = first[at] + number
            where = torch.from_numpy(places).to(hidden.device)
            try:
                new = self._next(rows[at], hidden[where], logits[where], tokens[places])
            except (MemoryError, RuntimeError) as error:
                if not number or not short_of_memory(error):
                    raise
                break  # the rows have their first tokens; the others come again, the same, with the next step
            drafter.counters.accepted += len(at) if number else 0
            events, number = events + new, number + 1
            over = {event.row for event in new if isinstance(event, Ended)} | self._forced(rows[at])
            at = at[(taken[at] > number) & [row not in over for row in rows[at].tolist()]]
        return events

    def _forced(self, rows: np.ndarray) -> set[int]:
        """Return those of `rows` whose monitor has something to write."""
        watches = ((row, self._rows.jobs[row].watch) for row in rows[self._rows.look[rows] > 0].tolist())
        return {row for row, watch in watches if watch is not None and watch.forced}

    def _next(self, rows: np.ndarray, hidden: Tensor, logits: Tensor, given: np.ndarray) -> list[Ended | Piece | Waits]:
        """Write the next token of each of `rows`, the one `given` or, for -1, a drawn one; return what that ends."""
        state = self._rows
        if state.rewards is not None:
            written = state.drawn[rows] > 0  # what stands before is judged where it was read
            rewards = self._runner.rewards(hidden).numpy(force=True)
            state.rewards[rows[written], state.drawn[rows[written]] - 1] = rewards[written]
        knobs = state.knobs[:, rows]
        noise = uniforms(state.seed[rows], state.place[rows])
        forcing: list[deque[int]] = []
        for at in np.flatnonzero(state.look[rows]).tolist():
            job = state.jobs[int(rows[at])]
            if job.watch is not None and job.watch.forced:
                given[at] = job.watch.forced[0]
                forcing.append(job.watch.forced)
            if isinstance(job.request, Sample) and job.request.hidden and len(job.hidden) < state.drawn[rows[at]]:
                job.hidden.append(hidden[at].clone())
            if job.top and job.closing is None and len(job.tops) <= state.place[rows[at]]:
                likeliest = logits[at].log_softmax(-1).topk(min(job.top, logits.shape[1]))
                job.tops.append((likeliest.indices, likeliest.values))
        wants, drawn = bool(state.wants[rows].any()), state.drawn[rows]
        new, logprobs = draw(
            logits, noise, given=given, temperature=knobs[0], top_p=knobs[1], min_p=knobs[2], logprobs=wants
        )
        for forced in forcing:  # only now: until here, memory may run out and all of this be done again
            forced.popleft()
        if logprobs is not None:
            state.logprobs[rows, drawn] = logprobs
        state.history[rows, drawn] = new
        going = ~self._ends[new]
        state.place[rows] += 1
        state.last[rows] = np.where(going, new, state.last[rows])
        state.drawn[rows] += going
        state.length[rows] += going
        stops = self._tables.tables[state.table[rows], new]
        look = ~going | stops | (state.place[rows] >= state.stop_at[rows]) | (state.look[rows] > 0) | (new < 0)
        events: list[Ended | Piece | Waits] = []
        for at in np.flatnonzero(look).tolist():
            events += self._look(int(rows[at]), bool(going[at]), int(new[at]), bool(stops[at]), hidden[at])
        return events

    @torch.inference_mode()
    def _process(self, rows: np.ndarray, logits: Tensor, places: np.ndarray) -> None:
        """Let the processors of `rows` change their logits, those at `places` [rows] of [n, vocabulary]."""
        for at in np.flatnonzero(self._rows.look[rows]).tolist():
            row = int(rows[at])
            job, mine = self._rows.jobs[row], logits[int(places[at])]
            if job.processor is not None and job.closing is None:
                try:
                    mine.copy_(job.processor(tuple(self._rows.history[row, : self._rows.drawn[row]].tolist()), mine))
                except Exception as error:  # a rule that somebody else wrote: its request fails, the others go on
                    job.error = error
                    mine.fill_(float("nan"))

    def _look(self, row: int, going: bool, token: int, maybe: bool, hidden: Tensor) -> list[Ended | Piece | Waits]:
        job = self._rows.jobs[row]
        ended = self._ended(row, job, going=going, token=token, maybe=maybe, hidden=hidden)
        if ended is not None:
            return [ended]
        events: list[Ended | Piece | Waits] = []
        if job.watch is None and job.watched is not None and job.watched():
            events += self._piece(row, job)
        if job.closing is None and self._rows.place[row] >= self._rows.stop_at[row] and not self._rows.allow(row):
            events.append(Waits(job.key))
        return events

    def _piece(self, row: int, job: Job) -> list[Piece]:
        """Return what has been written since the last piece, up to the last whole character."""
        fresh = self._rows.history[row, job.said : self._rows.drawn[row]].tolist()
        text = self._vocabulary.text(fresh)
        if not text or text.endswith("\ufffd"):
            return []
        job.said += len(fresh)
        return [Piece(job.key, text)]

    def _ended(self, row: int, job: Job, *, going: bool, token: int, maybe: bool, hidden: Tensor) -> Ended | None:
        """Return how a row ends with its newest token, None if it goes on."""
        state, drawn = self._rows, int(self._rows.drawn[row])
        assert isinstance(job.request, Sample)
        if token < 0:
            job.error, job.generated = job.error or self._traced(row, going=going), int(state.place[row]) - 1
            return Ended(row, "length", None, drawn - 1, drawn - 1, None)
        if job.closing is not None:  # the token drawn after its end only served to see the last hidden state
            state.drawn[row], state.length[row] = drawn - going, state.length[row] - going
            job.generated = int(state.place[row]) - 1
            return Ended(row, *job.closing, drawn - going, drawn - going, hidden)
        job.generated = int(state.place[row])
        history = state.history[row, :drawn]
        stop = self._stops.found(history, job.request.stop) if maybe else None
        reason = "stop" if stop else "end" if not going else None
        back = 0
        if job.watch is not None and stop is None:
            place = drawn - 1 if going else drawn
            try:
                text = self._vocabulary.text([token if going else self._end])
                action = job.watch.see(text, float(state.logprobs[row, place]))
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
        if job.request.hidden and going and not back and job.error is None:
            job.closing = (reason, stop)
            return None
        known = hidden if not going and not back else None
        return Ended(row, reason, stop, drawn - back, min(drawn - back, drawn if not going else drawn - 1), known)

    def _traced(self, row: int, *, going: bool) -> NotNumbers:
        """Return what to say of a row whose newest token could not be drawn."""
        state, job = self._rows, self._rows.jobs[row]
        place, drawn = int(state.length[row]) - going - 1, int(state.drawn[row]) - going
        token = int(state.history[row, drawn - 1]) if drawn else job.link.whole()[-1]
        return traced(self._runner, state.memory, table=state.pages[row].tolist(), tokens=[token], start=place)
