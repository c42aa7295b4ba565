"""Does this machine compute a token to the same bits whatever is computed beside it?

Deterministic mode needs of every operation that a row's result does not depend on how many rows there are nor on
where it stands.  Our own kernels are written so; of oneDNN's products it holds where we looked, given rows in multiples
of 32, but nobody promises it.  So it is tried, with the very weights, at loading.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from outthink.engine.levels import Plan
from outthink.engine.pages import PAGE, Pages
from outthink.engine.runner import Batch, Runner

_LENGTH = 40


def steady(runner: Runner, *, context: int, seed: int = 0) -> bool:
    """Return whether hidden states and logits have the same bits alone and in company, at once and token by token."""
    length = min(context, _LENGTH)
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(runner.config.vocab_size, (40, length), generator=generator)
    expected = _computed(runner, texts[:1], [0, length])
    return all(
        all(map(torch.equal, _computed(runner, texts[:rows].flip(0), cuts), expected))
        for rows, cuts in (
            (1, [*range(length + 1)]),
            (3, [0, 1, length // 2, length]),
            (17, [0, length - 1, length]),
            (40, [0, 5, 12, length]),
            (40, [0, *range(length - 9, length + 1)]),
        )
    )


def _computed(runner: Runner, texts: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor]:
    """Return hidden states and logits of the last of `texts` [rows, length], all computed from cut to cut together."""
    (rows, length), config = texts.shape, runner.config
    columns = -(-length // PAGE)
    pages = Pages(
        config.num_hidden_layers, kv_heads=config.num_key_value_heads, head_dim=runner.width, count=rows * columns,
        dtype=runner.dtype,
    )  # fmt: skip
    table = torch.arange(rows * columns, dtype=torch.int32).view(rows, columns)
    head = runner.rewards if runner.config.is_reward_model else runner.logits
    parts = []
    for start, end in pairwise(cuts):
        count = end - start
        positions = torch.arange(start, end, dtype=torch.int32).repeat(rows)
        owners = torch.arange(rows).repeat_interleave(count)
        slots = table[owners, positions // PAGE].long() * PAGE + positions % PAGE
        tasks = [(row * count, (row + 1) * count, row, 0, columns) for row in range(rows)]
        plan = Plan(np.array(tasks, dtype=np.int32), np.array([0, rows], dtype=np.int32))
        hidden = runner.run(Batch(texts[:, start:end].reshape(-1), positions, slots, table, plan), pages)
        parts.append((hidden[-count:], head(hidden)[-count:]))
    return torch.cat([hidden for hidden, _ in parts]), torch.cat([values for _, values in parts])
