"""Does this machine compute a token to the same bits whatever is computed beside it?

Deterministic mode needs three things of the kernels below: a row of a product does not depend on how many rows there
are nor where it stands; zeros at the end of a sum do not change it; an attention product does not depend on the others
in its batch.  They hold where we looked (MKL on AVX-512 with 1 and 2 threads), given at least 4 query rows and rows and
contexts in multiples of 32, but no library promises them.  So they are tried, with the very weights, at loading.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from outthink.engine.cache import Cache
from outthink.engine.runner import Runner


def steady(runner: Runner, *, context: int, seed: int = 0) -> bool:
    """Return whether hidden states and logits have the same bits alone and in company, at once and token by token."""
    length = min(context, 40)
    cache = Cache(runner.config, rows=40, capacity=context, dtype=runner.dtype)
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(runner.config.vocab_size, (40, length), generator=generator)
    whole = runner.extend(cache, texts[:1], torch.zeros(1, dtype=torch.int64))[0]
    head = runner.rewards if runner.config.is_reward_model else runner.logits
    expected = whole, head(whole)
    return all(
        _same(runner, head, cache, texts[:rows].flip(0), cuts, expected)
        for rows, cuts in (
            (1, [*range(length + 1)]),
            (3, [0, 1, length // 2, length]),
            (17, [0, length - 1, length]),
            (40, [0, 5, 12, length]),
            (40, [0, *range(length - 9, length + 1)]),
        )
    )


def _same(
    runner: Runner,
    head: Callable[[Tensor], Tensor],
    cache: Cache,
    texts: Tensor,
    cuts: list[int],
    expected: tuple[Tensor, Tensor],
) -> bool:
    """Return whether the last of `texts`, computed piece by piece, comes out as `expected` (hidden states, head)."""
    hidden = torch.cat(
        [runner.extend(cache, texts[:, start:end], torch.full((len(texts),), start)) for start, end in pairwise(cuts)],
        1,
    )
    values = head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])[-1]
    return torch.equal(hidden[-1], expected[0]) and torch.equal(values, expected[1])
