"""Products with weights, by the faster of two kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_FEW = 16  # rows below which oneDNN's call costs more than its kernel saves
_TYPICAL = 256  # rows that oneDNN lays the weights out for; others work too


class Linear:
    """x -> x @ weight.T for x [N, in].

    In float32 and with 16 rows or more by oneDNN, twice as fast as MKL on the AMD machines we measured; where torch
    comes without oneDNN, and for few rows, by torch's own choice.  The type of `weight` is the type computed in.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.contiguous()
        there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        fast = there and weight.dtype == torch.float32
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, _TYPICAL) if fast else None

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is None or len(x) < _FEW:
            return F.linear(x, self._weight)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
