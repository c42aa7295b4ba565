"""Weights of 8 and 4 bits.  Activations stay as they are: they are multiplied in bfloat16.

Rounded to nearest, without data: int8 with one scale for each output, int4 with a scale and an offset for each group
of inputs.  Scales are rounded to bfloat16 first and weights are rounded with those, so nothing is lost twice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.core.errors import InvalidInput, Unsupported

GROUPS = (32, 64, 128)
_MANY = 24  # rows from which turning the weights to bfloat16 and one large product is faster than the int8 kernel
_MANY4 = 128  # the same for the int4 kernel: turning takes more steps
_BLOCK = 1 << 20  # weights turned at once: they stay in the cache and cost no memory to speak of
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8)  # shares of a group's range that are tried for int4
_LANE = 32  # inputs of the int8 kernel come in multiples of 16; with others it reads beyond the end
_TILE = 64  # outputs that the int4 kernel packs together; it takes multiples of 16


class Int8:
    """x [N, in] -> x @ weight.T + bias, of weights in 8 bits; the result has the type of x."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._wide = -weight.shape[1] % _LANE
        self._weight, self._scale = quantise8(F.pad(weight, (0, self._wide)))
        self._bias = None if bias is None else bias.float()
        self._block = max(1, _BLOCK // self._weight.shape[1])
        self._kernel = weight.device.type == "cpu" and hasattr(torch, "_weight_int8pack_mm")

    def __call__(self, x: Tensor) -> Tensor:
        near = _near(x, self._wide)
        if self._kernel and len(x) < _MANY:
            out = torch._weight_int8pack_mm(near, self._weight, self._scale)
        else:
            # whole numbers up to 127 are exact in bfloat16
            out = torch.cat([F.linear(near, part.to(near.dtype)) for part in self._weight.split(self._block)], -1)
            out *= self._scale
        return (out if self._bias is None else out + self._bias).to(x.dtype)


class Int4:
    """x [N, in] -> x @ weight.T + bias, of weights in 4 bits; the result has the type of x.

    group: inputs that share a scale and an offset: 32, 64 or 128.  More is smaller and less exact.

    Raises InvalidInput for another group, Unsupported where this torch has no kernel for 4 bits on this device.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, group: int = 32) -> None:
        if group not in GROUPS:
            raise InvalidInput(f"group {group}: inputs share a scale in groups of {', '.join(map(str, GROUPS))}")
        if weight.device.type != "cpu" or not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
            raise Unsupported(f"int4 weights on {weight.device.type}: this torch has no kernel; take int8 or bfloat16")
        self._group, (self._out, width) = group, weight.shape
        self._wide = -width % group
        padded = F.pad(weight.float(), (0, self._wide, 0, -self._out % _TILE))
        numbers, self._scales = quantise4(padded, group=group)
        self._weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
        self._blocks = max(1, _BLOCK // (_TILE * padded.shape[1]))
        self._open = torch.equal(self._numbers(self._packed()).transpose(1, 2).reshape(numbers.shape), numbers)
        self._bias = None if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        near = _near(x, self._wide)
        if len(x) >= _MANY4 and self._open:
            out = self._product(near)
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(near, self._weight, self._group, self._scales)
        out = out[:, : self._out]
        return (out if self._bias is None else out + self._bias).to(x.dtype)

    def _product(self, near: Tensor) -> Tensor:
        """Return the product by weights turned to bfloat16, some tiles of outputs at a time."""
        scales = self._scales.unflatten(1, (-1, _TILE)).permute(3, 1, 0, 2)[:, :, :, None]  # [2, tiles, groups, 1, 64]
        outs = []
        for first in range(0, scales.shape[1], self._blocks):
            numbers = self._numbers(self._packed()[first : first + self._blocks]).to(torch.bfloat16)
            scale, offset = scales[:, first : first + self._blocks].contiguous()
            weight = (numbers.unflatten(1, (-1, self._group)) - 8).mul_(scale).add_(offset)
            outs.append(near @ weight.flatten(1, 2).transpose(0, 1).flatten(1))
        return torch.cat(outs, -1)

    def _packed(self) -> Tensor:
        return self._weight.view(-1, 2 * self._weight.shape[1], _TILE // 2)

    @staticmethod
    def _numbers(packed: Tensor) -> Tensor:
        """Return what torch packed [tiles, in, 64]: of 64 outputs, the first 32 are in the low halves of bytes.

        That is how torch does it on processors with AVX-512; whether it did so here is checked when weights are made.
        """
        return torch.cat([packed & 15, packed >> 4], -1)


def quantise8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (numbers [out, in] of -127..127, int8, scales [out], bfloat16); weight is about numbers * scales."""
    weight = weight.float()
    scale = (weight.abs().amax(1).clamp(min=1e-30) / 127).to(torch.bfloat16)
    return (weight / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8).contiguous(), scale


def quantise4(weight: Tensor, *, group: int) -> tuple[Tensor, Tensor]:
    """Return (numbers [out, in] of 0..15, int32, scales and offsets [in / group, out, 2], bfloat16).

    weight is about (numbers - 8) * scale + offset.  Of several ranges, each a part of the group's own, the one with
    the least squared error is taken: a weight far out is worth less than the resolution of the others.
    """
    grouped = weight.float().unflatten(1, (-1, group))
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    middle, span = (low + high) / 2, (high - low).clamp(min=1e-30)
    best = torch.full_like(low, float("inf"))
    numbers, scale, offset = torch.zeros_like(grouped), torch.ones_like(low), torch.zeros_like(low)
    for cut in _CUTS:
        trial = (span * cut / 15).to(torch.bfloat16).float()
        shift = (middle + trial / 2).to(torch.bfloat16).float()
        whole = ((grouped - shift) / trial).round_().clamp_(-8, 7)
        error = (whole * trial + shift - grouped).square_().sum(-1, keepdim=True)
        better = error < best
        numbers, scale = torch.where(better, whole, numbers), torch.where(better, trial, scale)
        offset, best = torch.where(better, shift, offset), torch.where(better, error, best)
    both = torch.cat([scale, offset], -1).to(torch.bfloat16).transpose(0, 1).contiguous()
    return (numbers + 8).flatten(1).to(torch.int32).contiguous(), both


def _near(x: Tensor, wide: int) -> Tensor:
    return (F.pad(x, (0, wide)) if wide else x).to(torch.bfloat16).contiguous()
