"""Products with weights: every kind is the product, to the precision of its kind, for every number of rows."""

import pytest
import torch
from torch.nn import functional as F

from outthink.core.errors import InvalidInput
from outthink.engine.linear import linear
from outthink.engine.quantised import Int4, quantise4, quantise8
from outthink.engine.size import KINDS

# Of the standard deviation of the result, for normal weights: rounding of 8 mantissa bits, 8 and 4 bits.
ERROR = {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.02, "int4": 0.12}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64), (704, 128), (1, 48), (37, 100), (1100, 512)], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_every_kind_is_the_product(kind, shape, biased):
    weight, bias = random(*shape), random(shape[0], seed=1) if biased else None
    product = linear(weight, bias, kind=kind)
    for rows in (1, 5, 16, 23, 24, 127, 128):
        x = random(rows, shape[1], seed=2)
        wanted = F.linear(x, weight, bias)
        found = product(x)
        assert found.dtype == x.dtype and found.shape == wanted.shape
        assert (found - wanted).square().mean().sqrt() < ERROR[kind] * shape[1] ** 0.5
        assert product(x.bfloat16()).dtype == torch.bfloat16


def test_no_rows_give_no_rows():
    for kind in KINDS:
        assert linear(random(64, 64), kind=kind)(torch.empty(0, 64)).shape == (0, 64)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_four_bits_lose_at_most_half_a_step_inside_the_range(group):
    weight = random(48, 256)
    numbers, both = quantise4(weight, group=group)
    assert numbers.min() >= 0 and numbers.max() <= 15
    scale, offset = both.float().transpose(0, 1).unbind(-1)
    grouped = weight.unflatten(1, (-1, group))
    near = (numbers.unflatten(1, (-1, group)) - 8) * scale[..., None] + offset[..., None]
    inside = (numbers.unflatten(1, (-1, group)) > 0) & (numbers.unflatten(1, (-1, group)) < 15)
    assert ((near - grouped).abs() <= scale[..., None] / 2 * 1.01)[inside].all()
    product = Int4(weight, group=group)
    for rows in (3, 200):
        x = random(rows, 256, seed=5)
        assert torch.allclose(product(x), F.linear(x, near.flatten(1)), atol=0.4)


def test_weights_are_unpacked_only_where_torch_packs_as_we_think(monkeypatch):
    """Another layout must not give another product: the kernel is then used for every number of rows."""
    weight, x = random(100, 96), random(128, 96, seed=1)
    wanted = Int4(weight)(x)
    monkeypatch.setattr(Int4, "_numbers", staticmethod(lambda packed: torch.cat([packed >> 4, packed & 15], -1)))
    other = Int4(weight)
    assert not other._open and torch.allclose(other(x), wanted, atol=0.4)


def test_eight_bits_lose_at_most_half_a_step():
    weight = random(48, 96) * torch.logspace(-6, 3, 48)[:, None]
    numbers, scale = quantise8(weight)
    step = scale.float()[:, None]
    assert ((numbers * step - weight).abs() <= step * 0.76).all(), "half a step, and the largest by what scales round"


def test_weights_of_zero_stay_zero():
    for kind in KINDS:
        assert linear(torch.zeros(32, 64), kind=kind)(random(4, 64)).abs().max() < 1e-20


def test_less_is_held_in_fewer_bits():
    weight = random(256, 256)
    bits = {
        kind: sum(
            tensor.nbytes for tensor in vars(linear(weight, kind=kind)).values() if isinstance(tensor, torch.Tensor)
        )
        for kind in ("int8", "int4")
    }
    assert bits["int8"] < 1.02 * weight.numel() and bits["int4"] < 0.63 * weight.numel()


@pytest.mark.parametrize("make", [lambda w: linear(w, kind="int5"), lambda w: Int4(w, group=48)])
def test_another_kind_is_refused(make):
    with pytest.raises(InvalidInput, match=r"int8|32, 64, 128"):
        make(random(32, 64))
