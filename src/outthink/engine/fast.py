"""The operations between products on the CPU, by the C kernels. `plain.py` has the same names and meanings in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from outthink.engine.levels import Plan
from outthink.engine.native import Kernels


class Fast:
    """Every result depends on its own row alone; out-of-place results are new tensors of `dtype`, activations' type."""

    def __init__(self, kernels: Kernels, dtype: torch.dtype) -> None:
        self._c, self._dtype, self._bf16 = kernels, dtype, int(dtype == torch.bfloat16)

    def final(self, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        """Return x / rms(x) * gain of x [n, size], float32."""
        x, out = x.contiguous(), torch.empty(x.shape)
        self._c.norm(x.data_ptr(), 0, gain.data_ptr(), out.data_ptr(), *x.shape, eps, 0)
        return out

    def norm(self, x: Tensor, delta: Tensor | None, gain: Tensor, eps: float) -> Tensor:
        """Add `delta` to x [n, size] (float32, in place), return x / rms(x) * gain in the activations' type."""
        out = torch.empty(x.shape, dtype=self._dtype)
        added = 0 if delta is None else delta.data_ptr()
        self._c.norm(x.data_ptr(), added, gain.data_ptr(), out.data_ptr(), *x.shape, eps, self._bf16)
        return out

    def spread(
        self, qkv: Tensor, keys: Tensor, values: Tensor, *, turns: tuple[Tensor, Tensor], bias: Tensor | None,
        gains: tuple[Tensor, Tensor] | None, positions: Tensor, slots: Tensor, heads: int, size: int, eps: float,
    ) -> Tensor:  # fmt: skip
        """Write the keys and values of qkv [n, (heads + 2 kv) size] into pages; return queries [n, heads, width].

        Queries are scaled by size ** -0.5, queries and keys normed (where there are gains) and turned to their
        position; width is that of the pages, with zeros behind size.  slots [n] int64: 16 * page + offset, or below 0.
        """
        n, (kv, width) = len(qkv), keys.shape[1:3]
        queries = torch.empty((n, heads, width))
        first, second = (0, 0) if gains is None else (gains[0].data_ptr(), gains[1].data_ptr())
        self._c.spread(
            qkv.data_ptr(), 0 if bias is None else bias.data_ptr(), first, second, turns[0].data_ptr(),
            turns[1].data_ptr(), positions.data_ptr(), slots.data_ptr(), queries.data_ptr(), keys.data_ptr(),
            values.data_ptr(), n, heads, kv, size, width, size**-0.5, eps, self._bf16,
        )  # fmt: skip
        return queries

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, table: Tensor, seen: Tensor, plan: Plan, window: int
    ) -> Tensor:
        """Return attention [n, heads, width], float32; see `attention.attend`."""
        n, heads, width = queries.shape
        out, lse = torch.empty((n, heads, width)), torch.empty((n, heads))
        self._c.attend(
            queries.data_ptr(), keys.data_ptr(), values.data_ptr(), table.data_ptr(), seen.data_ptr(),
            plan.tasks.ctypes.data, plan.phases.ctypes.data, out.data_ptr(), lse.data_ptr(), len(plan.phases) - 1,
            n, table.shape[1], heads, keys.shape[1], width, self._bf16, window,
        )  # fmt: skip
        return out

    def gate(self, both: Tensor) -> Tensor:
        """Return silu(first half) * second half of [n, 2 size]."""
        out = torch.empty((len(both), both.shape[1] // 2), dtype=self._dtype)
        self._c.gate(both.data_ptr(), out.data_ptr(), *out.shape, self._bf16)
        return out
