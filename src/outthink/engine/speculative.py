"""Speculative decoding: a small model proposes what comes next, and the model reads the proposals in one go.

The draft model has a forest of its own, in which it reads what it has not seen and writes what it proposes.  It
proposes at every place, also where nothing is gained by it (a row's first token, and behind proposals that all stood):
so the token at a place is the same function of the text before it, seed and place wherever steps begin and end, and the
text of a seed depends neither on the company nor on pauses nor on `lookahead`.  A row without a draft (the draft's
memory is short) is proposed token 0 with certainty, for which the rule of `acceptance` is right as for anything else.

Source: Leviathan et al. 2023, algorithm 1.  Ours differs: behind proposals that all stood it draws by the same rule,
not from p directly.  The draft model has to read the last of them in any case.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from outthink.core.errors import InvalidInput, Unsupported
from outthink.engine.acceptance import chances, pick
from outthink.engine.ahead import Ahead, Speculation
from outthink.engine.batch import compute
from outthink.engine.config import Config
from outthink.engine.faults import TooLarge, short_of_memory
from outthink.engine.forest import Forest
from outthink.engine.jobs import Job
from outthink.engine.levels import Plan, plan
from outthink.engine.node import Branch
from outthink.engine.pages import PAGE, OutOfPages, Pages
from outthink.engine.prefill import Prefill, ready
from outthink.engine.rows import Rows
from outthink.engine.runner import Batch, Runner
from outthink.engine.sampler import uniforms
from outthink.engine.vocabulary import Vocabulary

Checkpoint = tuple[Config, dict[str, Tensor], Tokenizer]


def drafting(draft: Checkpoint, target: Runner, *, vocabulary: Vocabulary, context: int, lookahead: int) -> Runner:
    """Return a draft model's runner, of the same kind as the target's.

    Raises InvalidInput or Unsupported for one that cannot propose tokens of `vocabulary`.
    """
    config, weights, tokenizer = draft
    if lookahead < 1:
        raise InvalidInput(f"lookahead={lookahead}: it is 1 or more; leave the draft model out to draw token by token")
    if target.config.is_reward_model:
        raise Unsupported("a reward model draws nothing that could be drafted; leave the draft model out")
    if config.is_reward_model:
        raise Unsupported("the draft model gives rewards, it cannot continue a text; take a language model")
    if config.vocab_size != vocabulary.size:
        raise InvalidInput(
            f"the draft model has {config.vocab_size} tokens, the model {vocabulary.size}; take two of one family, "
            "with the same tokenizer.json"
        )
    if Vocabulary(tokenizer, size=config.vocab_size).digest != vocabulary.digest:
        raise InvalidInput("the draft model's tokenizer is not the model's; take two with the same tokenizer.json")
    return Runner(config, weights, context=context, kind=target.kind, deterministic=target.deterministic)


class Drafter:
    """The draft model beside the rows of a target. Who has a row and is going has a branch here, all but its last
    token read; who is fresh is read first, and waits for that."""

    def __init__(self, runner: Runner, forest: Forest, *, rows: Rows, lookahead: int, share: bool) -> None:
        self.width, self.counters = lookahead + 1, Speculation()
        self._runner, self._forest, self._rows, self._share = runner, forest, rows, share
        self._prefill = Prefill(runner, forest)
        config = runner.config
        self._group = config.num_attention_heads // config.num_key_value_heads
        self._reading: dict[int, Job] = {}
        self._branches: dict[int, Branch] = {}
        self._pages = np.zeros_like(rows.pages)
        self._room = np.zeros(len(rows.pages), dtype=np.int64)
        self._open = np.zeros(len(rows.pages), dtype=bool)  # rows whose last place has no proposal yet
        rows.left = self.leave

    @classmethod
    def beside(cls, rows: Rows, runner: Runner, *, count: int, lookahead: int, share: bool) -> Drafter:
        """Return a drafter with memory for what `rows` can hold in `count` pages of their own, and for proposals."""
        config, places = runner.config, len(rows.pages)
        pages = Pages(
            config.num_hidden_layers, kv_heads=config.num_key_value_heads, head_dim=runner.width,
            count=count + places * (1 + lookahead // PAGE), dtype=runner.dtype, device=runner.device,
        )  # fmt: skip
        return cls(runner, Forest(pages, loose=count // 2), rows=rows, lookahead=lookahead, share=share)

    def tick(self) -> None:
        """Begin a step."""
        self._forest.tick()

    def leave(self, row: int) -> None:
        """A row is about to be freed: keep what was read of its text for those that go on from it."""
        job = self._reading.pop(row, None)
        if job is not None and job.held:
            self._forest.release(job.node)
        branch = self._branches.pop(row, None)
        if branch is not None:
            end = self._rows.jobs[row].link.end
            seen = max(branch.start, int(self._rows.length[row]) - 1)
            text = self._rows.history[row, branch.start - end : seen - end].tolist()
            self._forest.publish(branch, text, ready=seen)

    def read(self, *, tokens: int) -> tuple[list[int], Ahead]:
        """Read the texts of fresh rows, up to so many tokens; return those that may draw, and proposals to them."""
        state, forest = self._rows, self._forest
        nobody = np.empty(0, dtype=np.int64)
        for row in state.fresh:
            if row not in self._reading:
                job = state.jobs[row]
                rest = state.history[row, : state.drawn[row]].tolist()
                node = forest.path((*job.link.whole(), *rest))[-1]
                self._reading[row] = Job(row, job.request, job.link, node, job.number, rest=rest)
        jobs = [self._reading[row] for row in state.fresh]
        given_up: set[Job] = set()
        while tokens > 0:
            chunks = self._prefill.plan([job for job in jobs if job not in given_up], tokens=tokens)
            if not chunks:
                break
            try:
                hidden, at = compute(self._runner, forest.pages, state, nobody, chunks), 0
            except TooLarge as error:
                given_up.add(error.job)
                continue
            for chunk in chunks:
                count = chunk.end - chunk.start
                self._prefill.settle(chunk, hidden[at : at + count])
                at += count
            tokens, self.counters.read = tokens - at, self.counters.read + at
        rows = [row for row, job in zip(state.fresh, jobs, strict=True) if tokens > 0 or ready(job) or job in given_up]
        ends = [self._begin(row, self._reading.pop(row)) for row in rows]
        return rows, self._first(np.array(rows, dtype=np.int64), ends)

    def _begin(self, row: int, job: Job) -> Tensor | None:
        """Give the row a branch if its text was read; return the hidden state at its end."""
        hidden = None
        if ready(job):
            hidden = job.node.ends[len(job.node.tokens)]
            branch = self._branches[row] = self._forest.fork(job.node.path())
            self._pages[row, : len(branch.pages)] = branch.pages
            self._room[row] = branch.start
        if job.held:
            self._forest.release(job.node)
        return hidden

    def _first(self, rows: np.ndarray, ends: list[Tensor | None]) -> Ahead:
        known = np.array([i for i, end in enumerate(ends) if end is not None], dtype=np.int64)
        ahead = self._blank(np.ones(len(rows), dtype=np.int64))
        if len(known):
            self._propose(ahead, known, rows[known], torch.stack([end for end in ends if end is not None]), 0 * known)
        return ahead

    def propose(self, going: np.ndarray) -> Ahead:
        """Return proposals to the rows that go through the target next, as many as they may draw and have room for.

        What stands behind the last of them is left open until `finish`.
        """
        state = self._rows
        most = np.minimum(self.width - 1, state.stop_at[going] - state.place[going] - 1).clip(min=0)
        for at in np.flatnonzero(state.look[going]).tolist():
            job = state.jobs[int(going[at])]
            forced = job.watch is not None and job.watch.forced
            if job.closing is not None or forced or job.processor is not None:  # a processor sees no proposals
                most[at] = 0
        length = state.length[going]
        most = np.minimum(most, state.reach(going, length + most) - length)
        for at in np.flatnonzero(length + most > self._room[going]).tolist():
            self._grow(int(going[at]), int(length[at] + most[at]))
        known = np.array([row in self._branches for row in going.tolist()], dtype=bool)
        ahead = self._blank(np.where(known, most + 1, 1))
        self._open[:] = False
        self._open[going[known]] = True
        self._write(ahead, np.flatnonzero(known), going)
        self.counters.steps += len(going)
        self.counters.proposed += int(ahead.counts.sum()) - len(going)
        return ahead

    def _write(self, ahead: Ahead, known: np.ndarray, going: np.ndarray) -> None:
        """Put proposals to the rows numbered in `known` into `ahead`, a place of all of them at a time."""
        tokens = torch.from_numpy(self._rows.last[going[known]]).to(self._runner.device)
        batch = None
        for place in range(int(ahead.counts[known].max(initial=1)) - 1):
            more = ahead.counts[known] > place + 1
            if not more.all():
                known, tokens, batch = known[more], tokens[torch.from_numpy(more).to(tokens.device)], None
            rows, places = going[known], np.full(len(known), place)
            batch = batch or self._table(rows, ahead.counts[known])
            found = self._pass(ahead, known, rows, places, tokens, batch)
            if found is None:
                return
            tokens = found

    def finish(self, ahead: Ahead, at: np.ndarray, rows: np.ndarray) -> None:
        """Propose behind proposals that all stand, to the rows numbered `at` of `rows` where that is still open."""
        drafted = np.array([row in self._branches for row in rows[at].tolist()], dtype=bool)
        at = at[self._open[rows[at]] & drafted]
        if len(at):
            mine, counts = rows[at], ahead.counts[at]
            self._open[mine] = False
            last = torch.from_numpy(self._rows.last[mine]).to(self._runner.device)
            before = torch.from_numpy(np.maximum(ahead.first[at], ahead.first[at] + counts - 2)).to(last.device)
            none = torch.from_numpy(counts == 1).to(last.device)
            tokens = torch.where(none, last, ahead.tokens[before])
            self._pass(ahead, at, mine, counts - 1, tokens, self._table(mine, counts))

    def _table(self, rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, Tensor, Plan]:
        """Return the pages of `rows`, which have so many places to go, here and on the device, and who reads which."""
        begun = np.array([self._branches[row].start // PAGE for row in rows.tolist()], dtype=np.int64)
        pages = self._pages[rows, : -(-int((self._rows.length[rows] + counts).max()) // PAGE)]
        who = plan(pages, begun, group=self._group, share=self._share)
        return pages, torch.from_numpy(pages).to(self._runner.device), who

    def _pass(
        self, ahead: Ahead, at: np.ndarray, rows: np.ndarray, places: np.ndarray, tokens: Tensor,
        table: tuple[np.ndarray, Tensor, Plan],
    ) -> Tensor | None:  # fmt: skip
        """Read a token of each of `rows` [n], which are numbered `at`, and propose what comes behind it; return that.

        If memory runs out, the rows go on without a draft: None.
        """
        position, device = self._rows.length[rows] - 1 + places, self._runner.device
        slots = table[0][np.arange(len(rows)), position // PAGE].astype(np.int64) * PAGE + position % PAGE
        there = torch.from_numpy(position.astype(np.int32)).to(device)
        batch = Batch(tokens, there, torch.from_numpy(slots).to(device), *table[1:])
        try:
            hidden = self._runner.run(batch, self._forest.pages)
            self.counters.read += len(rows)
            return self._propose(ahead, at, rows, hidden, places)
        except (MemoryError, RuntimeError) as error:
            if not short_of_memory(error):
                raise
            for row in rows.tolist():
                self.leave(row)
            return None

    def _propose(self, ahead: Ahead, at: np.ndarray, rows: np.ndarray, hidden: Tensor, places: np.ndarray) -> Tensor:
        """Draw a proposal to each of `rows` [n], numbered `at` in `ahead`, from its hidden state; return it [n]."""
        state, slots = self._rows, torch.from_numpy(ahead.first[at] + places).to(hidden.device)
        heat, nucleus, least = state.knobs[:, rows]
        found = chances(self._runner.logits(hidden), temperature=heat, top_p=nucleus, min_p=least)
        broken = ~found[:, 0].isfinite()
        if bool(broken.any()):
            found[broken] = ahead.chances[slots[broken]]
        tokens = pick(found, uniforms(state.seed[rows], state.place[rows] + places))
        ahead.chances[slots], ahead.tokens[slots] = found, tokens
        return tokens

    def _blank(self, counts: np.ndarray) -> Ahead:
        """Return proposals of token 0 for certain."""
        count, device = int(counts.sum()), self._runner.device
        sure = torch.zeros((count, self._runner.config.vocab_size), device=device)
        sure[:, 0] = 1.0
        return Ahead(counts, torch.zeros(count, dtype=torch.int64, device=device), sure)

    def _grow(self, row: int, length: int) -> None:
        """Make room for the proposals to a row; one for which there is none goes on without."""
        branch, first = self._branches.get(row), int(self._room[row]) // PAGE
        if branch is None:
            return
        try:
            self._forest.grow(branch, -(-length // PAGE) * PAGE)
        except OutOfPages:
            self.leave(row)
        else:
            self._pages[row, first : len(branch.pages)] = branch.pages[first:]
            self._room[row] = len(branch.pages) * PAGE
