"""Prefill: which missing tokens of which paths are computed in a step, and what is kept of them.

Paths share nodes, and a node is computed for the first who misses it; others find it at the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outthink.core.request import Score
from outthink.engine.faults import traced
from outthink.engine.forest import Forest
from outthink.engine.jobs import Job
from outthink.engine.node import Node
from outthink.engine.pages import PAGE, OutOfPages
from outthink.engine.runner import Runner
from outthink.engine.sampler import logprobs

_WAIT = 8  # tokens in common with a page that is being computed, from which waiting a step for them pays
_LOGITS = 128  # positions whose logits are in memory at a time: of a large vocabulary they take more than the model


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `end` of the path that `nodes` (from the root on) cover, to be computed for `job`."""

    job: Job
    nodes: list[Node]
    start: int
    end: int

    def tokens(self) -> list[int]:
        first = self.start // PAGE
        known = [token for node in self.nodes[first:] for token in node.tokens]
        return known[self.start - first * PAGE : self.end - first * PAGE]

    def pages(self) -> list[int]:
        return [node.page for node in self.nodes]

    def halves(self) -> list[Chunk]:
        """Return it as two, of which the first is computed before the second."""
        middle = (self.start + self.end) // 2
        return [Chunk(self.job, self.nodes, self.start, middle), Chunk(self.job, self.nodes, middle, self.end)]


def ready(job: Job) -> bool:
    """Return whether all is there that `job` needs of its path: keys and values, and what is known at its end."""
    node = job.node
    if not node.complete:
        return False
    if isinstance(job.request, Score):
        return not _unknown(job)
    return len(node.tokens) in node.ends


class Prefill:
    """Chooses and settles. Nothing is carried from one step to the next except what the nodes hold."""

    def __init__(self, runner: Runner, forest: Forest) -> None:
        self._runner, self._forest = runner, forest

    def plan(self, jobs: Sequence[Job], *, tokens: int) -> list[Chunk]:
        """Return what to compute of what `jobs` miss, in their order, up to so many tokens.

        Memory is reserved for it; a job that finds none waits.
        """
        chunks: list[Chunk] = []
        claimed: dict[Node, list[Node]] = {}
        for job in jobs:
            if tokens <= 0:
                break
            chunk = None if ready(job) else self._chunk(job, tokens, claimed)
            if chunk is not None:
                chunks.append(chunk)
                tokens -= chunk.end - chunk.start
        return chunks

    def _chunk(self, job: Job, most: int, claimed: dict[Node, list[Node]]) -> Chunk | None:
        """Return the job's chunk; `claimed`: what is being computed in this step already, by parents."""
        if job.node.parent is None:  # nobody held or named it, and it is gone; looked up no sooner than it is needed,
            job.node = self._forest.path((*job.link.whole(), *job.rest))[-1]  # for that keeps it from being evicted
        nodes = job.node.path()
        start = self._begin(job, nodes)
        if not job.held:
            self._forest.hold(job.node)
            job.held = True
        end = min(job.node.end, start + most)
        for node in nodes[start // PAGE : -(-end // PAGE)]:
            beside = claimed.setdefault(_parent(node), [])
            known = self._forest.known(node)
            if any(_worth(node, other, known) for other in beside):
                end = node.start
                break
            try:
                self._forest.reserve(node)
            except OutOfPages:
                end = node.start
                break
            beside.append(node)
        if end <= start:
            return None
        return Chunk(job, nodes, max(start, min(self._begin(job, nodes), end - 1)), end)

    def _begin(self, job: Job, nodes: Sequence[Node]) -> int:
        """Return the first position to compute: what is missing, or what has to be seen again."""
        start = job.node.end - 1  # its last hidden state is wanted, so at least the last
        for node in reversed(nodes):
            if node.ready:
                start = min(start, node.start + node.ready)
                break
            start = min(start, node.start)
        if isinstance(job.request, Score):
            before = 1 if job.request.of == "logprob" else 0  # it comes from the hidden state before its token
            start = min([start, *(max(0, place - before) for place in _unknown(job)[:1])])
        return start

    def settle(self, chunk: Chunk, hidden: Tensor) -> None:
        """Hand the hidden states [end - start, hidden_size] of a computed chunk to the nodes.

        Notes in its job if what a Score asks for is no number: it would be computed for ever.
        """
        found = self._values(chunk, hidden)
        if any(np.isnan(values[kind == "logprob" :]).any() for kind, values in found.items()):
            chunk.job.error = traced(
                self._runner, self._forest.pages, table=chunk.pages(), tokens=chunk.tokens(), start=chunk.start
            )
        for node in chunk.nodes[chunk.start // PAGE : -(-chunk.end // PAGE)]:
            first, last = max(chunk.start, node.start), min(chunk.end, node.end)
            fresh = max(0, last - node.start - node.ready)
            chunk.job.computed += last - first - fresh + node.advance(fresh)
            for kind, values in found.items():
                node.note(kind, values[first - chunk.start :], first=first - node.start)
        node = chunk.nodes[-1]
        if chunk.end == node.end:
            node.ends[len(node.tokens)] = hidden[-1].clone()

    def _values(self, chunk: Chunk, hidden: Tensor) -> dict[str, np.ndarray]:
        """Return what the model says of each token of the chunk, by kind; NaN where it cannot know."""
        values = {"reward": self._runner.rewards(hidden).numpy(force=True)} if self._runner.judges else {}
        request = chunk.job.request
        if isinstance(request, Score) and request.of == "logprob":
            chances = values["logprob"] = np.full(chunk.end - chunk.start, np.nan, dtype=np.float32)
            tokens = torch.tensor(chunk.tokens(), device=hidden.device)
            for first in range(1, len(tokens), _LOGITS):
                part = tokens[first : first + _LOGITS, None]
                logits = self._runner.logits(hidden[first - 1 : first - 1 + len(part)])
                chances[first : first + len(part)] = logprobs(logits, part[:, 0])
            if chunk.start == 0:
                chances[0] = 0.0  # nothing predicts the first token of a text
        return values


def _worth(node: Node, other: Node, known: int) -> bool:
    """Return whether to wait for `other`, which is being computed: it is the same, or adds enough to what is known."""
    if other is node:
        return True
    common = next((i for i, (a, b) in enumerate(zip(node.tokens, other.tokens, strict=False)) if a != b), PAGE)
    return min(common, len(node.tokens), len(other.tokens)) - known >= _WAIT


def _parent(node: Node) -> Node:
    assert node.parent is not None
    return node.parent


def _unknown(job: Job) -> list[int]:
    """Return the positions, of those that a Score needs to know, whose values are not known; in order."""
    request = job.request
    assert isinstance(request, Score)
    if request.of == "logprob":
        first = job.link.start
    elif request.step is not None:
        first = next(link.end for link in job.link.upwards() if link.parent is None)
    else:
        first = job.link.end - 1
    first = min(first, job.link.end - 1) if request.of == "reward" else first
    unknown: list[int] = []
    node: Node | None = job.node
    while node is not None and node.parent is not None and node.end > first:
        begin = max(first, node.start)
        values = node.values.get(request.of)
        if values is None:
            unknown += range(begin, node.end)
        else:
            unknown += (begin + np.flatnonzero(np.isnan(values[begin - node.start :]))).tolist()
        node = node.parent
    return sorted(unknown)
