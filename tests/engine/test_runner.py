"""The runner against transformers and against itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

import outthink.models
from outthink.engine.checkpoint import load_checkpoint, save_checkpoint
from outthink.engine.levels import Plan
from outthink.engine.pages import PAGE, Pages
from outthink.engine.runner import Batch, Runner
from outthink.testing.tiny_llama import tiny_llama, tiny_tokenizer

SHIPPED = sorted(path.parent for path in Path(outthink.models.__file__).parent.glob("embedded/*/config.json"))
VOCABULARY = tiny_tokenizer().get_vocab_size()
SHAPES = {
    "grouped queries": {},
    "tied": {"tied": True, "seed": 1},
    "one key head": {"kv_heads": 1, "seed": 2},
    "no groups, odd widths": {"heads": 3, "kv_heads": 3, "head": 8, "hidden": 42, "wide": 37, "seed": 3},
    "deep, eight queries a key": {"layers": 5, "heads": 8, "kv_heads": 1, "head": 32, "hidden": 64, "seed": 4},
    "reward": {"reward": True, "seed": 5},
}


def runner(parts, **options):
    config, weights, _ = parts
    settings = {"context": 128} | options
    return Runner(config, weights, **settings)


def memory(run, rows, capacity=128):
    """Pages for some rows of tokens, full of what is no number, and who has which: not in order."""
    config, columns = run.config, capacity // PAGE
    pages = Pages(
        config.num_hidden_layers, kv_heads=config.num_key_value_heads, head_dim=run.width, count=rows * columns,
        dtype=run.dtype,
    )  # fmt: skip
    pages.keys.fill_(float("nan"))
    pages.values.fill_(float("nan"))
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(rows))
    return pages, order.to(torch.int32).view(rows, columns)


def extend(run, tokens, start=0, cache=None):
    """Continue rows by tokens [rows, count] from positions `start` (one, or one per row) on."""
    rows, count = tokens.shape
    pages, table = cache = cache or memory(run, rows)
    begin = torch.as_tensor(start).expand(rows)[:, None]
    positions = (begin + torch.arange(count)).flatten().to(torch.int32)
    owners = torch.arange(rows).repeat_interleave(count)
    slots = table[owners, positions // PAGE].long() * PAGE + positions % PAGE
    tasks = [(row * count, (row + 1) * count, row, 0, table.shape[1]) for row in range(rows)]
    plan = Plan(np.array(tasks, dtype=np.int32), np.array([0, rows], dtype=np.int32))
    hidden = run.run(Batch(tokens.flatten(), positions, slots, table, plan), pages)
    return hidden.view(rows, count, -1), cache


def reference(folder, config):
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    kind = AutoModelForTokenClassification if config.is_reward_model else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def assert_same(run, model, tokens):
    """Hidden states and logits (rewards) within 1e-4 of those of transformers."""
    with torch.no_grad():
        expected = model(tokens, output_hidden_states=True)
    hidden, _ = extend(run, tokens)
    assert (hidden - expected.hidden_states[-1]).abs().max() < 1e-4
    if run.config.is_reward_model:
        values, wanted = run.rewards(hidden.flatten(0, 1)), expected.logits.sigmoid()
    else:
        values, wanted = run.logits(hidden.flatten(0, 1)), expected.logits
    assert (values.view_as(wanted) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("deterministic", [False, True])
def test_logits_are_those_of_transformers(shape, deterministic, tmp_path):
    config, weights, tokenizer = parts = tiny_llama(**shape)
    save_checkpoint(tmp_path, config, weights=weights, tokenizer=tokenizer)
    tokens = torch.randint(config.vocab_size, (3, 50), generator=torch.Generator().manual_seed(9))
    assert_same(runner(parts, deterministic=deterministic), reference(tmp_path, config), tokens)


@pytest.mark.parametrize("folder", SHIPPED, ids=[folder.name for folder in SHIPPED])
def test_shipped_models_are_those_of_transformers(folder):
    parts = config, _, tokenizer = load_checkpoint(folder)
    text = "[1] Ben has 52 cups.\n[2] He gives 12 cups to Tia.\nHow many cups does Ben have now?\n[2] 52-12=40\n# 40\n"
    tokens = torch.tensor([tokenizer.encode(text).ids])
    assert_same(runner(parts), reference(folder, config), tokens)


def test_pieces_give_what_the_whole_gives():
    run = runner(tiny_llama())
    tokens = torch.randint(VOCABULARY, (2, 60), generator=torch.Generator().manual_seed(1))
    whole, _ = extend(run, tokens)
    cache, parts, at = None, [], 0
    for count in (1, 1, 7, 30, 2, 19):
        part, cache = extend(run, tokens[:, at : at + count], at, cache)
        parts.append(part)
        at += count
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4


def test_rows_of_unlike_length_do_not_see_each_other():
    """Rows one of which is at position 0 and one near the end of the context."""
    run = runner(tiny_llama())
    generator = torch.Generator().manual_seed(2)
    starts = [0, 3, 41, 100]
    texts = [torch.randint(VOCABULARY, (1, start + 20), generator=generator) for start in starts]
    alone = [extend(run, text)[0][0, -20:] for text in texts]
    pages, table = memory(run, 4)
    for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
        if start:
            extend(run, text[:, :start], 0, (pages, table[row : row + 1]))
    together, _ = extend(run, torch.cat([text[:, -20:] for text in texts]), torch.tensor(starts), (pages, table))
    for row, expected in enumerate(alone):
        assert (together[row] - expected).abs().max() < 1e-4


def test_bfloat16_is_near():
    exact, near = (runner(tiny_llama(), kind=kind) for kind in ("float32", "bfloat16"))
    tokens = torch.randint(VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(3))
    assert (extend(exact, tokens)[0] - extend(near, tokens)[0]).abs().mean() < 0.05


def test_a_value_head_gives_the_same_bits_alone_and_in_company():
    generator = torch.Generator().manual_seed(4)
    head = (torch.randn(48, generator=generator), torch.randn(1, generator=generator))
    run = runner(tiny_llama(), deterministic=True, value_head=head)
    hidden = torch.randn(70, 48, generator=generator)
    together = run.rewards(hidden)
    assert all(torch.equal(run.rewards(hidden[i : i + n]), together[i : i + n]) for n in (1, 2, 31, 33) for i in (0, 5))
