"""Attention over pages in torch, for any device and as the C kernels' reference: partial attention, and merging.

A partial result over some of the keys is (out, lse): the softmax-weighted mean of their values and the log of the sum
of their exponentials.  Disjoint partial results merge exactly, in any order and grouping (Hydragen: Juravsky et al.
2024, section 3.1): m = max lse, w_i = exp(lse_i - m), out = sum w_i out_i / sum w_i, lse = m + log sum w_i.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from outthink.engine.levels import Plan
from outthink.engine.pages import PAGE


def partial(queries: Tensor, keys: Tensor, values: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
    """Return (out [..., n, width], lse [..., n]) of scaled queries [..., n, width] over keys, values [..., L, width].

    unseen: [..., n, L], True where a query does not see a key.  A query that sees none gets out 0 and lse -infinity.
    Both are float32, or what the queries are if that is more.
    """
    exact = torch.promote_types(queries.dtype, torch.float32)
    scores = (queries @ keys.transpose(-1, -2)).to(exact).masked_fill(unseen, float("-inf"))
    lse = scores.logsumexp(-1)
    shares = (scores - lse.masked_fill(lse == float("-inf"), 0.0)[..., None]).exp()
    return (shares.to(values.dtype) @ values.masked_fill(unseen.all(-2)[..., None], 0.0)).to(exact), lse


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the (out [..., width], lse [...]) of two partial results over disjoint keys."""
    most = torch.maximum(one[1], other[1])
    safe = most.masked_fill(most == float("-inf"), 0.0)
    first, second = (one[1] - safe).exp(), (other[1] - safe).exp()
    whole = first + second
    out = (one[0] * first[..., None] + other[0] * second[..., None]) / whole.clamp_min(1e-38)[..., None]
    return out, safe + whole.log()


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, table: Tensor, seen: Tensor, plan: Plan, window: int = 0
) -> Tensor:
    """Return attention [n, heads, width] of scaled queries [n, heads, width], float32 or more, task by task as planned.

    Args:
      keys: [pages, kv, width, 16]; values: [pages, kv, 16, width]: one layer's pages.
      table: [rows, columns] int32, the pages of each row; seen: [n] int32, how many tokens each query sees.
      window: a query sees only the last `window` of those; 0 means all.
    """
    (n, heads, width), kv = queries.shape, keys.shape[1]
    grouped = queries.view(n, kv, heads // kv, width)
    out = torch.zeros_like(grouped)
    lse = torch.full(grouped.shape[:-1], float("-inf"), dtype=queries.dtype, device=queries.device)
    for first, last, wide, row, start, end in _batches(plan, seen, table.shape[1]):
        pages = table[row, start:end].long()  # [r, c]: a row of pages for each of r groups of `wide` queries
        k = keys[pages].permute(0, 2, 1, 4, 3).flatten(2, 3)  # [r, kv, L, width]
        v = values[pages].permute(0, 2, 1, 3, 4).flatten(2, 3)
        q = grouped[first:last].unflatten(0, (-1, wide)).permute(0, 2, 1, 3, 4).flatten(2, 3).to(k.dtype)
        limit = seen[first:last].view(-1, wide)
        place = torch.arange(start * PAGE, end * PAGE, device=queries.device)
        unseen = place >= limit[..., None]
        if window:
            unseen |= place < limit[..., None] - window
        unseen = unseen.repeat_interleave(heads // kv, 1)[:, None]
        found = partial(q, k, v, unseen)
        shape = (len(row), kv, wide, heads // kv)
        new = found[0].view(*shape, width).transpose(1, 2).flatten(0, 1), found[1].view(shape).transpose(1, 2)
        out[first:last], lse[first:last] = merge((out[first:last], lse[first:last]), (new[0], new[1].flatten(0, 1)))
    return out.view(n, heads, width)


def _batches(plan: Plan, seen: Tensor, columns: int) -> list[tuple[int, int, int, Tensor, int, int]]:
    """Return the plan's tasks, neighbours of one row each together: first, last, rows a task, table rows, pages."""
    limits = -(-seen.cpu().numpy() // PAGE)
    joined: list[list[int]] = []
    for phase, following in zip(plan.phases, plan.phases[1:], strict=False):
        fresh = True
        for first, last, row, start, end in plan.tasks[phase:following].tolist():
            end = min(end, int(limits[first:last].max()), columns)
            if end <= start:
                continue
            before = joined[-1] if joined and not fresh else None
            alone = last - first == 1
            if before and alone and before[2] == 1 and before[1] == first and before[4] == start:
                before[1], before[5] = last, max(before[5], end)
                before[3].append(row)  # type: ignore[attr-defined]
            else:
                joined.append([first, last, last - first, [row], start, end])  # type: ignore[list-item]
            fresh = False
    return [
        (first, last, wide, torch.from_numpy(np.array(rows)).to(seen.device), start, end)
        for first, last, wide, rows, start, end in joined  # type: ignore[misc]
    ]
