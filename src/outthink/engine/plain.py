"""The operations between products in torch, on any device. `fast.py` has the same names and meanings for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.engine.attention import attend
from outthink.engine.levels import Plan
from outthink.engine.pages import PAGE


class Plain:
    """What the C kernels are checked against, and what runs where they do not."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def final(self, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, gain.shape, gain, eps)

    def norm(self, x: Tensor, delta: Tensor | None, gain: Tensor, eps: float) -> Tensor:
        if delta is not None:
            x += delta
        return F.rms_norm(x, gain.shape, gain, eps).to(self._dtype)

    def spread(
        self, qkv: Tensor, keys: Tensor, values: Tensor, *, turns: tuple[Tensor, Tensor], bias: Tensor | None,
        gains: tuple[Tensor, Tensor] | None, positions: Tensor, slots: Tensor, heads: int, size: int, eps: float,
    ) -> Tensor:  # fmt: skip
        kv, width = keys.shape[1:3]
        x = qkv.float() if bias is None else qkv.float() + bias
        q, k, v = x.view(len(x), -1, size).split([heads, kv, kv], 1)
        if gains is not None:
            q, k = (F.rms_norm(part, (size,), gain, eps) for part, gain in zip((q, k), gains, strict=True))
        cosine, sine = (table[positions.long()][:, None] for table in turns)
        queries = F.pad(_turned(q, cosine, sine) * size**-0.5, (0, width - size))
        there = slots >= 0
        page, offset = slots[there] // PAGE, slots[there] % PAGE
        keys[page, :, :, offset] = F.pad(_turned(k, cosine, sine), (0, width - size))[there].to(keys.dtype)
        values[page, :, offset] = F.pad(v, (0, width - size))[there].to(values.dtype)
        return queries

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, table: Tensor, seen: Tensor, plan: Plan, window: int
    ) -> Tensor:
        return attend(queries, keys, values, table=table, seen=seen, plan=plan, window=window)

    def gate(self, both: Tensor) -> Tensor:
        first, second = both.chunk(2, -1)
        return F.silu(first) * second


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
