"""Attention over pages: partial results, merging, and the C kernels against torch."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from outthink.engine.attention import attend, merge, partial
from outthink.engine.fast import Fast
from outthink.engine.levels import Plan, ordered, plan
from outthink.engine.native import WIDTHS, kernels
from outthink.engine.pages import PAGE
from outthink.engine.plain import Plain

NOTHING = -math.inf


def generator(seed):
    return torch.Generator().manual_seed(seed)


def whole(queries, keys, values, unseen):
    """Attention at once, in float64; queries that see nothing get 0."""
    scores = (queries.double() @ keys.double().transpose(-1, -2)).masked_fill(unseen, NOTHING)
    return scores.softmax(-1).nan_to_num(0.0) @ values.double(), scores.logsumexp(-1)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("seed", range(6))
def test_partial_results_merge_to_the_whole_in_any_grouping(dtype, near, seed):
    """Keys cut into pieces, empty ones among them; some queries see nothing of a piece, one sees nothing at all."""
    g = generator(seed)
    queries = torch.randn(3, 5, 8, generator=g, dtype=dtype)
    keys, values = (torch.randn(3, 40, 8, generator=g, dtype=dtype) for _ in range(2))
    unseen = torch.rand(3, 5, 40, generator=g) < 0.5
    unseen[:, 1], unseen[0, 2, :25], unseen[1, 3] = True, True, False
    expected, lse = whole(queries, keys, values, unseen)
    cuts = [0, *sorted(torch.randint(0, 41, (5,), generator=g).tolist()), 40]
    parts = [partial(queries, keys[:, a:b], values[:, a:b], unseen[..., a:b]) for a, b in pairwise(cuts)]
    while len(parts) > 1:
        at = int(torch.randint(0, len(parts) - 1, (1,), generator=g))
        parts[at : at + 2] = [merge(parts[at + 1], parts[at])]
    out, found = parts[0]
    assert (out - expected).abs().max() < near
    assert (found[:, 1] == NOTHING).all() and (out[:, 1] == 0).all()
    rest = [0, 2, 3, 4]
    assert (found[:, rest] - lse[:, rest]).abs().max() < near


def test_a_partial_result_of_no_keys_is_nothing():
    queries, keys = torch.randn(2, 3, 4), torch.randn(2, 0, 4)
    out, lse = partial(queries, keys, keys, torch.zeros(2, 3, 0, dtype=torch.bool))
    assert (out == 0).all() and (lse == NOTHING).all()


def test_scores_far_apart_neither_overflow_nor_vanish():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    for gap in (0.0, 80.0, 1e4):
        out, lse = merge((one, torch.tensor([gap])), (other, torch.tensor([-gap])))
        assert out[0, 0] == pytest.approx(1 / (1 + math.exp(-2 * gap))) and lse[0] >= gap


class Forest:
    """Rows of a random tree of pages with queries: decoding rows first, then rows of several queries (chunks).

    Everything that was not written is no number.
    """

    def __init__(self, seed, *, heads, kv, width, dtype, window=0):
        rng, g = np.random.default_rng(seed), generator(seed)
        self.window, fresh = window, iter(rng.permutation(400))
        rows = [[]]
        for _ in range(3):
            rows = [[*row, *piece] for row in rows for piece in
                    [[next(fresh) for _ in range(rng.integers(0, 4))] for _ in range(rng.integers(1, 4))]]  # fmt: skip
        shared = np.array([len(row) for row in rows])
        rows = [[*row, *(next(fresh) for _ in range(rng.integers(1, 3)))] for row in rows]
        columns = max(map(len, rows))
        self.pages = np.array([[*row, *[0] * (columns - len(row))] for row in rows], dtype=np.int32)
        order = ordered(self.pages, shared)
        self.pages, shared = self.pages[order], shared[order]
        self.decoding = int(rng.integers(1, len(rows) + 1))
        self.owners, self.seen = [], []
        for row in range(len(rows)):
            length = max(len(rows[order[row]]), 1) * PAGE - int(rng.integers(0, PAGE))
            count = 1 if row < self.decoding else int(rng.integers(1, min(length, 30) + 1))
            self.owners += [row] * count
            self.seen += range(length - count + 1, length + 1)
        n = len(self.owners)
        self.queries = torch.randn(n, heads, width, generator=g) / width**0.25
        shapes = (400, kv, width, PAGE), (400, kv, PAGE, width)
        self.keys, self.values = (torch.full(shape, math.nan, dtype=dtype) for shape in shapes)
        for row in range(len(rows)):
            last = max(seen for seen, owner in zip(self.seen, self.owners, strict=True) if owner == row)
            for at in range(-(-last // PAGE)):
                page, count = self.pages[row, at], min(PAGE, last - at * PAGE)
                self.keys[page, :, :, :count] = torch.randn(kv, width, count, generator=g).to(dtype)
                self.values[page, :, :count] = torch.randn(kv, count, width, generator=g).to(dtype)
        self.table, self.seen = torch.from_numpy(self.pages), torch.tensor(self.seen, dtype=torch.int32)
        self.shared, self.group = shared, heads // kv

    def plan(self, *, share=True):
        rows = plan(self.pages[: self.decoding], self.shared[: self.decoding], group=self.group, share=share)
        owners, columns = np.array(self.owners), self.pages.shape[1]
        more = [[*np.flatnonzero(owners == row)[[0, -1]] + [0, 1], row, 0, columns]
                for row in range(self.decoding, len(self.pages))]  # fmt: skip
        tasks = np.concatenate([np.array(more, dtype=np.int32).reshape(-1, 5), rows.tasks])
        phases = rows.phases + len(more)
        phases[0] = 0
        return Plan(np.ascontiguousarray(tasks), phases)

    def alone(self, query, attention):
        """The attention of one query that nobody is computed beside."""
        task = [[0, 1, self.owners[query], 0, self.pages.shape[1]]]
        only = Plan(np.array(task, dtype=np.int32), np.array([0, 1], dtype=np.int32))
        return attention(self.queries[query : query + 1].contiguous(), self.keys, self.values, table=self.table,
                         seen=self.seen[query : query + 1].contiguous(), plan=only, window=self.window)[0]  # fmt: skip

    def by(self, attention, **options):
        return attention(
            self.queries, self.keys, self.values, table=self.table, seen=self.seen, plan=self.plan(**options),
            window=self.window,
        )  # fmt: skip

    def expected(self):
        """Every query at once over all it sees, in float64."""
        out = []
        for query, (row, seen) in enumerate(zip(self.owners, self.seen.tolist(), strict=True)):
            first = max(0, seen - self.window) if self.window else 0
            pages = self.table[row, : -(-seen // PAGE)].long()
            keys = self.keys[pages].permute(1, 0, 3, 2).flatten(1, 2)[:, first:seen]
            values = self.values[pages].permute(1, 0, 2, 3).flatten(1, 2)[:, first:seen]
            q = self.queries[query].view(keys.shape[0], self.group, -1)
            q = q.to(keys.dtype)
            unseen = torch.zeros(*q.shape[:2], seen - first, dtype=torch.bool)
            out.append(whole(q, keys, values, unseen)[0].flatten(0, 1))
        return torch.stack(out)


@pytest.fixture(scope="module")
def native():
    found = kernels()
    if found is None:
        pytest.skip("no C compiler here")
    return found


@pytest.mark.parametrize("group", [1, 2, 4, 8])
@pytest.mark.parametrize("window", [0, 5, 37])
@pytest.mark.parametrize("seed", range(3))
def test_attention_over_a_tree_is_plain_attention(native, group, window, seed):
    forest = Forest(seed, heads=2 * group, kv=2, width=16, dtype=torch.float32, window=window)
    expected = forest.expected()
    for attention in (attend, Fast(native, torch.float32).attend):
        for share in (True, False):
            assert (forest.by(attention, share=share) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("parts", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_width_that_is_compiled(native, parts, dtype):
    """The kernel takes sums in float32, torch rounds scores and shares to the pages' type too."""
    forest = Forest(7 + parts, heads=6, kv=2, width=16 * parts, dtype=dtype, window=parts % 2 * 30)
    if dtype == torch.bfloat16:
        forest.queries = forest.queries.bfloat16().float()
    expected = forest.expected()
    assert (forest.by(Fast(native, dtype).attend) - expected).abs().max() < 1e-5
    assert (forest.by(attend) - expected).abs().mean() < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_has_the_same_bits_alone_and_in_company(native, seed, dtype):
    """As long as nothing is shared by levels; three queries a key head, so that tiles cut across rows."""
    forest = Forest(20 + seed, heads=3, kv=1, width=32, dtype=dtype)
    fast = Fast(native, dtype).attend
    together = forest.by(fast, share=False)
    for query in range(0, len(together), 3):
        assert torch.equal(forest.alone(query, fast), together[query])


ODD = ((8, 16), (16, 16), (20, 32), (24, 32), (64, 64), (80, 80), (96, 96), (128, 128))
"""Sizes of heads, and their widths in pages."""


@pytest.mark.parametrize(("size", "width"), ODD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("extras", ["none", "bias", "norms", "both"])
def test_spread_writes_and_turns_as_torch_does(native, size, width, dtype, extras):
    g = generator(size)
    heads, kv, n = 4, 2, 11
    qkv = torch.randn(n, (heads + 2 * kv) * size, generator=g).to(dtype)
    angles = torch.rand(64, size // 2, generator=g) * 7
    bias = torch.randn(qkv.shape[1], generator=g) if extras in ("bias", "both") else None
    gains = tuple(torch.rand(size, generator=g) + 0.5 for _ in range(2)) if extras in ("norms", "both") else None
    positions = torch.randint(0, 64, (n,), generator=g, dtype=torch.int32)
    slots = torch.randperm(6 * PAGE, generator=g)[:n]
    slots[3] = -1
    results = []
    for ops in (Plain(dtype), Fast(native, dtype)):
        keys = torch.full((6, kv, width, PAGE), 9.0, dtype=dtype)
        values = torch.full((6, kv, PAGE, width), 9.0, dtype=dtype)
        queries = ops.spread(
            qkv, keys, values, turns=(angles.cos(), angles.sin()), bias=bias, gains=gains, positions=positions,
            slots=slots, heads=heads, size=size, eps=1e-6,
        )  # fmt: skip
        results.append((queries, keys.float(), values.float()))
    near = 1e-5 if dtype == torch.float32 else 4e-2  # two roundings of one number may be neighbours in bfloat16
    (queries, keys, values), found = results[0], results[1]
    assert (queries - found[0]).abs().max() < 1e-5
    assert (keys - found[1]).abs().max() < near and (values - found[2]).abs().max() < near
    assert (found[0][..., size:] == 0).all()
    untouched = torch.ones(6 * PAGE, dtype=torch.bool).index_fill_(0, slots[slots >= 0], False).view(6, PAGE)
    assert (found[1].permute(0, 3, 1, 2)[untouched] == 9).all() and (found[2].transpose(1, 2)[untouched] == 9).all()
    assert (found[1][:, :, size:].permute(0, 3, 1, 2)[~untouched] == 0).all()


@pytest.mark.parametrize("size", [1, 15, 16, 37, 48, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_gates_are_those_of_torch(native, size, dtype):
    g = generator(size)
    fast, plain = Fast(native, dtype), Plain(dtype)
    near = 1e-5 if dtype == torch.float32 else 4e-2
    gain, delta = torch.rand(size, generator=g), torch.randn(5, size, generator=g).to(dtype)
    both = (torch.randn(5, 2 * size, generator=g) * 30).to(dtype)
    for more in (None, delta):
        x, y = (torch.randn(5, size, generator=generator(1)) for _ in range(2))
        one, other = fast.norm(x, more, gain, 1e-6), plain.norm(y, more, gain, 1e-6)
        assert one.dtype == other.dtype == dtype and (one.float() - other.float()).abs().max() < near
        assert (x - y).abs().max() < 1e-6, "the residual is added in place"
        assert (fast.final(x, gain, 1e-6) - plain.final(x, gain, 1e-6)).abs().max() < 1e-5
        assert torch.equal(fast.norm(x[2:3].clone(), None, gain, 1e-6), fast.norm(x.clone(), None, gain, 1e-6)[2:3])
    one, other = fast.gate(both).float(), plain.gate(both).float()
    assert ((one - other).abs() / other.abs().clamp(min=1)).max() < near / 4
    assert torch.equal(fast.gate(both[1:2].contiguous())[0], fast.gate(both)[1])
