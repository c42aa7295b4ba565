"""Replies to `Score` from the values that the nodes of a path hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from outthink.core.request import Score, Scored
from outthink.engine.jobs import Job
from outthink.engine.node import Node
from outthink.engine.vocabulary import Vocabulary


def scored(job: Job, vocabulary: Vocabulary) -> Scored:
    """Return the reward at the end of the prefix and of its steps, or the log-probability of its last piece."""
    request = job.request
    assert isinstance(request, Score)
    if request.of == "logprob":
        return Scored(float(_values(job, "logprob", job.link.start).sum(dtype=np.float64)))
    value = float(_values(job, "reward", job.link.end - 1)[0])
    if request.step is None:
        return Scored(value)
    root = next(link for link in job.link.upwards() if link.parent is None)
    below = [link.tokens for link in job.link.upwards() if link.parent is not None]
    tokens = [token for piece in reversed(below) for token in piece]
    rewards = _values(job, "reward", root.end)
    return Scored(value, tuple(float(rewards[end]) for end in step_ends(tokens, request.step, vocabulary)))


def _values(job: Job, kind: str, first: int) -> np.ndarray:
    """Return what is known of the tokens from position `first` to the end of the job's path."""
    parts = []
    node: Node | None = job.node
    while node is not None and node.parent is not None and node.end > first:
        parts.append(node.values[kind][max(0, first - node.start) :])
        node = node.parent
    return np.concatenate([np.empty(0, dtype=np.float32), *reversed(parts)])


def step_ends(tokens: Sequence[int], step: str, vocabulary: Vocabulary) -> list[int]:
    """Return the index of the token in which each step ends: where `step` was matched, and the last token.

    Matches do not overlap; a step that ends inside a token ends with it, and two that end inside one token end twice.
    Of no tokens there are no steps.
    """
    text, wanted = vocabulary.spell(tokens), step.encode()
    ends = list(accumulate(len(vocabulary.spelled[token]) for token in tokens))
    found: list[int] = []
    token = 0
    at = text.find(wanted)
    while at >= 0:
        at += len(wanted)
        while ends[token] < at:
            token += 1
        found.append(token)
        at = text.find(wanted, at)
    if tokens and not text.endswith(wanted):
        found.append(len(tokens) - 1)
    return found
