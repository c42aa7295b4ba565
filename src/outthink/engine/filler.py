"""Prefill: computes what is missing of prefixes, in chunks, many prefixes together, each shared piece once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from outthink.engine.cache import Cache
from outthink.engine.jobs import Job
from outthink.engine.runner import Runner
from outthink.engine.store import Node, Store

_CHUNK = 256  # most tokens of one prefix in one step: a long prompt shares the step with others, and with decoding


@dataclass(frozen=True, slots=True)
class Plan:
    """`count` tokens of `path` from position `start` on, to be computed for `job`."""

    job: Job
    path: list[Node]
    start: int
    count: int


class Filler:
    """Chooses and computes. Nothing is carried from one step to the next except what the nodes hold."""

    def __init__(self, runner: Runner, store: Store, *, rows: int, context: int, tokens: int) -> None:
        self._runner, self._store, self._tokens = runner, store, tokens
        self._cache = Cache(runner.config, rows=rows, capacity=context, dtype=runner.dtype)

    def fill(self, jobs: Sequence[Job], *, values: bool = False) -> None:
        """Compute up to the step's number of tokens of what `jobs` miss, first come first served.

        A piece that two jobs miss is computed for the first; the other finds it at the next step.  With `values` the
        log-probabilities of the last piece are wanted too.
        """
        plans: list[Plan] = []
        claimed: set[int] = set()
        left = self._tokens
        for job in jobs:
            if left <= 0:
                break
            plan = _plan(job, self._store.path(job.path), min(_CHUNK, left), claimed, values)
            if plan is not None:
                plans.append(plan)
                left -= plan.count
        if jobs:
            self._store.path(jobs[0].path)  # used last, so let go of last: whoever is first in line gets on
        plans.sort(key=lambda plan: plan.count)  # like lengths together: less padding
        for at in range(0, len(plans), self._cache.rows):
            self._compute(plans[at : at + self._cache.rows])

    def _compute(self, plans: list[Plan]) -> None:
        tokens = torch.zeros((len(plans), plans[-1].count), dtype=torch.int64)
        for row, plan in enumerate(plans):
            at = 0
            for node in plan.path:
                if at >= plan.start:
                    break
                assert node.block is not None
                self._cache.write(row, row + 1, at=at, block=node.block, count=node.ready)
                at += len(node.tokens)
            flat = [token for node in plan.path for token in node.tokens]
            tokens[row, : plan.count] = torch.tensor(flat[plan.start : plan.start + plan.count])
        hidden = self._runner.extend(self._cache, tokens, torch.tensor([plan.start for plan in plans]))
        rewards = None
        if self._runner.config.is_reward_model:
            rewards = self._runner.rewards(hidden.flatten(0, 1)).view(tokens.shape)
        for row, plan in enumerate(plans):
            self._keep(plan, row, hidden[row], None if rewards is None else rewards[row])

    def _keep(self, plan: Plan, row: int, hidden: Tensor, rewards: Tensor | None) -> None:
        """Hand what was computed in `row` to the nodes of the plan's path."""
        begin, done = 0, 0
        before: Tensor | None = None
        for node in plan.path:
            end = begin + len(node.tokens)
            at = plan.start + done - begin
            if done < plan.count and at < len(node.tokens):
                count = min(plan.count - done, len(node.tokens) - at)
                self._cache.read(row, plan.start + done, into=self._store.reserve(node), at=at, count=count)
                fresh = hidden[done : done + count]
                if rewards is not None:
                    if node.values is None:
                        node.values = torch.empty(len(node.tokens))
                    node.values[at : at + count] = rewards[done : done + count]
                elif node.values is not None:
                    earlier = node.hidden if at else before
                    node.values[at : at + count] = self._logprobs(node.tokens[at : at + count], fresh, earlier)
                plan.job.computed += count - min(node.owed, count)
                node.owed -= min(node.owed, count)
                node.ready, node.hidden = at + count, fresh[-1].clone()
                done += count
            before, begin = node.hidden, end

    def _logprobs(self, tokens: tuple[int, ...], hidden: Tensor, earlier: Tensor | None) -> Tensor:
        """Return the log-probability of each token [n]; of the first token of a root, which nothing predicts, 0."""
        first = torch.zeros_like(hidden[:1]) if earlier is None else earlier[None]
        logits = self._runner.logits(torch.cat([first, hidden[:-1]]))
        values = logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]
        if earlier is None:
            values[0] = 0.0
        return values


def _plan(job: Job, path: list[Node], most: int, claimed: set[int], values: bool) -> Plan | None:
    """Return what to compute for `job` now: from the first token missing to the next piece that is there."""
    if values and path[-1].values is None:
        path[-1].ready, path[-1].values = 0, torch.empty(len(path[-1].tokens))
    start = missing = 0
    for node in path:
        if not missing and node.complete:
            start += node.ready
        elif not missing:
            if id(node) in claimed:
                return None
            claimed.add(id(node))
            node.ready = min(node.ready, len(node.tokens) - 1)  # its last hidden state is wanted, so at least the last
            start += node.ready
            missing = len(node.tokens) - node.ready
        elif node.ready:
            break
        else:
            missing += len(node.tokens)
    return Plan(job, path, start, min(missing, most)) if missing else None
