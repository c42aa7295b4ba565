"""Replies to `Score` from the values that the nodes of a path hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

from outthink.core.request import Score, Scored
from outthink.engine.jobs import Job
from outthink.engine.store import Node
from outthink.engine.vocabulary import Vocabulary


def scored(job: Job, path: Sequence[Node], vocabulary: Vocabulary) -> Scored:
    """Return the reward at the end of the prefix and of its steps, or the log-probability of its last piece."""
    request = job.request
    assert isinstance(request, Score)
    if request.of == "logprob":
        values = path[-1].values
        assert values is not None
        return Scored(float(values.sum(dtype=torch.float64)) if job.link.tokens else 0.0)
    last = path[-1].values
    assert last is not None
    value = float(last[-1])
    if request.step is None:
        return Scored(value)
    root = next(link for link in job.link.upwards() if link.parent is None)
    below = path[1:] if root.tokens else path
    tokens = [token for node in below for token in node.tokens]
    rewards = [reward for node in below if node.values is not None for reward in node.values.tolist()]
    return Scored(value, tuple(rewards[end] for end in step_ends(tokens, request.step, vocabulary)))


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
