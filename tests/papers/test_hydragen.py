"""Hydragen without a clock: exactness over random trees, and pages read by the formula."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from outthink.engine.attention import attend
from outthink.engine.engine import Engine
from outthink.engine.levels import MERGE, plan
from outthink.engine.pages import PAGE
from outthink.papers.serving.hydragen import Tree, decode, layout, reads
from outthink.testing.tiny_llama import tiny_llama

OWN = 2


def grown(rng, depth):
    """A random tree, with empty nodes and nodes without texts of their own."""
    children = () if depth == 0 else tuple(grown(rng, depth - 1) for _ in range(rng.randrange(0, 4)))
    return Tree(rng.randrange(0, 9), children, rng.randrange(0 if children else 1, 4))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("group", [1, 2, 8])
def test_sharing_changes_no_result(seed, group):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    table, shared = layout(grown(rng, 3), own=OWN)
    kv, width, rows = 2, 16, len(table)
    keys = torch.randn(int(table.max()) + 1, kv, width, PAGE, generator=generator, dtype=torch.float64)
    values = torch.randn(int(table.max()) + 1, kv, PAGE, width, generator=generator, dtype=torch.float64)
    queries = torch.randn(rows, kv * group, width, generator=generator, dtype=torch.float64)
    seen = torch.tensor([(count + 1) * PAGE + rng.randrange(1, PAGE) for count in shared], dtype=torch.int32)

    def mixed(share, dtype):
        made = plan(table, shared, group=group, share=share)
        return attend(queries.to(dtype), keys.to(dtype), values.to(dtype), table=torch.from_numpy(table), seen=seen,
                      plan=made)  # fmt: skip

    exact = mixed(False, torch.float64)
    assert (mixed(True, torch.float64) - exact).abs().max() < 1e-12
    assert (mixed(True, torch.float32) - exact).abs().max() < 1e-5


def pages(tree, *, share, group=1):
    table, shared = layout(tree, own=OWN)
    return plan(table, shared, group=group, share=share).pages_read(shared + OWN)


TREES = {
    "one prompt": Tree(64, rows=64),
    "two levels": Tree(40, tuple(Tree(12, rows=16) for _ in range(4))),
    "three levels": Tree(30, tuple(Tree(20, tuple(Tree(10, rows=4) for _ in range(3))) for _ in range(3))),
    "uneven": Tree(9, (Tree(50, rows=9), Tree(5, rows=30), Tree(0, (Tree(20, rows=3),)))),
    "texts in inner nodes": Tree(20, (Tree(20, rows=8),), rows=8),
    "a forest": Tree(0, (Tree(33, rows=8), Tree(17, rows=8))),
}


@pytest.mark.parametrize("name", TREES)
def test_where_every_level_pays_pages_are_read_by_the_formula(name):
    alone, once = reads(TREES[name], own=OWN)
    assert pages(TREES[name], share=True) == once < alone == pages(TREES[name], share=False)


def test_the_formula_is_the_papers():
    """Sum of n_l P_l over the levels, against batch times depth."""
    tree = TREES["two levels"]
    assert reads(tree, own=OWN) == (64 * (40 + 12 + OWN), 40 + 4 * 12 + 64 * OWN)
    assert reads(Tree(0), own=OWN) == (0, 0)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("group", [1, 4])
def test_a_level_is_left_out_only_where_it_would_not_pay(seed, group):
    tree = grown(random.Random(seed), 3)
    table, shared = layout(tree, own=OWN)
    made = plan(table, shared, group=group)
    alone, once = reads(tree, own=OWN)
    read, merged = made.pages_read(shared + OWN), made.tasks[made.tasks[:, 1] - made.tasks[:, 0] > 1]
    joined = int((merged[:, 1] - merged[:, 0]).sum())
    assert once <= read <= alone
    assert read + MERGE * group * joined <= alone or not len(merged)


@pytest.fixture(scope="module")
def model():
    """Texts never end: the end has a logit of 0, and greedy takes what is likelier."""
    config, weights, tokenizer = tiny_llama(tied=True, context=1024)
    weights["model.embed_tokens.weight"][0] = 0
    return config, weights, tokenizer


@pytest.mark.parametrize(("n", "tokens"), [(8, 20), (32, 5)])
def test_the_engine_reads_by_the_formula_and_writes_the_same(model, n, tokens):
    prompt, found = "the cat sat on the mat. " * 20, {}
    for share in (True, False):
        engine = Engine(*model, share=share)
        found[share] = decode(engine, [prompt], n=n, tokens=tokens)
    length = len(engine.vocabulary.encode(prompt, root=True))
    whole = length // PAGE
    steps = [(Tree(whole, rows=n), -(-(length + step) // PAGE) - whole) for step in range(1, tokens)]
    alone, once = np.sum([reads(tree, own=own) for tree, own in steps], 0)
    assert (found[False].pages, found[True].pages) == (alone, once)
    assert found[True].texts == found[False].texts and len(found[True].texts) == n
    assert found[True].tokens == found[False].tokens == n * (tokens - 1)


def test_without_attention_texts_differ_and_the_engine_is_as_before(model):
    engine = Engine(*model)
    first, empty, again = (decode(engine, ["the cat"], n=4, tokens=20, empty=flag) for flag in (False, True, False))
    assert first.texts == again.texts != empty.texts
    assert replace(first, seconds=1.0).rate == 4 * 19
