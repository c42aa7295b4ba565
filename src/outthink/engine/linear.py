"""Products with weights: laid out once for the kernel that is fastest here, in the type asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.core.errors import unknown
from outthink.engine.quantised import Int4, Int8
from outthink.engine.size import KINDS

_FEW = 16  # rows below which the kernels compared; from there on one kernel only, so that bits do not depend on rows
_SMALL = 1 << 19  # multiplications below which oneDNN's call (10 us) costs more than its kernel saves
_CACHED = 1 << 17  # weights of a matrix that stays in the cache; larger ones two threads read faster, MKL takes one
_TYPICAL = 256  # rows that oneDNN lays the weights out for; others work too


class Linear:
    """x -> x @ weight.T + bias for x [N, in], in the type of `weight`; the result has the type of x.

    By oneDNN from weights laid out for it, where torch has it and the weights are on a CPU.  On an AMD EPYC with
    AVX-512, one thread and 1024 x 1024 weights: float32 2.4 times as fast as `F.linear` at 16 rows or more (which MKL
    does), and as fast at one row; bfloat16 twice as fast at one row, 1.2 times at 64.  Of float32 weights that are
    small (embedded models) the plain ones are kept too, for products of few rows.  Others are held once: laid out.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._type, self.out = weight.dtype, weight.shape[0]
        self._bias = None if bias is None else bias.to(weight.dtype)
        fast = weight.device.type == "cpu" and _has_kernel(weight.dtype)
        small = weight.dtype == torch.float32 and weight.numel() <= _CACHED
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL) if fast else None
        self._plain = weight.contiguous() if small or not fast else None
        self._few = min(_FEW, _SMALL // weight.numel() + 1) if small else 0

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != self._type:
            return self(x.to(self._type)).to(x.dtype)
        if self._packed is None or len(x) < self._few:
            return F.linear(x, self._plain, self._bias)  # type: ignore[arg-type]
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def linear(weight: Tensor, bias: Tensor | None = None, *, kind: str) -> Callable[[Tensor], Tensor]:
    """Return x [N, in] -> x @ weight.T + bias [N, out], computed as `kind` says; the result has the type of x.

    kind: "float32", "bfloat16", or weights of 8 or 4 bits ("int8", "int4") that are multiplied in bfloat16.  Embedding
      tables, norms and the output layer stay in float32 or bfloat16 whatever the kind of the rest.

    Nothing of `weight` is held except where it is used as it is (float32, small or without oneDNN).
    Raises InvalidInput for another kind, Unsupported for "int4" where this torch has no kernel.
    """
    if kind not in KINDS:
        raise unknown("kind of weights", kind, KINDS)
    if kind == "int8":
        return Int8(weight, bias)
    if kind == "int4":
        return Int4(weight, bias)
    return Linear(weight.to(getattr(torch, kind)), bias)


def _has_kernel(dtype: torch.dtype) -> bool:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
