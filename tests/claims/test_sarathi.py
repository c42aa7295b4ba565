"""Sarathi on the CPU: 40 requests that come while others are written, by the engine's own scheduler and by two others.

Waits are measured in tokens put through the model, which is the same on every machine, and in seconds of the one
processor that works. What a token costs beside a chunk is measured on a model of 43 M parameters, where reading the
weights is most of a step without a chunk.
"""

from __future__ import annotations

import os
import platform
import random
import time

import pytest
import torch

from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.engine.engine import Engine
from outthink.papers.claims import Part, Result
from outthink.papers.serving.sarathi import Played, arrivals, riding, serve
from outthink.testing.tiny_llama import tiny_llama

BUDGETS, REQUESTS, TOKENS, SEEDS = (128, 256, 512), 40, 128, (0, 1, 2, 3, 4)
SMALL = {"layers": 4, "heads": 8, "kv_heads": 4, "head": 32, "hidden": 256, "wide": 768, "context": 2048}
LARGE = {"layers": 6, "heads": 12, "kv_heads": 12, "head": 64, "hidden": 768, "wide": 2048, "context": 1024}
ROWS, CHUNKS, STEP = (1, 4, 16, 64), 12, 250
WORDS = "the cat sat on the mat. dog ate rat and then ran answer:".split()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sarathi(record):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = endless(SMALL)
        engines = {str(c): {"step_tokens": c} for c in BUDGETS}
        engines |= {"whole prompts beside rows": {"step_tokens": 4096}, "prefill first": {"mixed": False}}
        played = {name: [play(model, seed=seed, **more) for seed in SEEDS] for name, more in engines.items()}
        cheap = beside()
    finally:
        torch.set_num_threads(threads)
    parts = [shorter(played, clock=0), shorter(played, clock=1), bounded(played), cheap, alike(played)]
    setting = (
        f"{REQUESTS} requests of 300 to 1200 prompt tokens and {TOKENS} of text, coming at random, one in the time of "
        f"0.7 requests' tokens ({len(SEEDS)} seeds), to a random Llama of 4 layers and 256 channels, float32, one "
        f"thread of {os.cpu_count()} ({platform.machine()}), load {os.getloadavg()[0]:.1f}. By budget of a step: "
        f"{said(played)}. "
        "Again with: make claims"
    )
    result = Result("serving/sarathi", setting, parts)
    record(result)
    # What needs no clock holds everywhere; whether the rest does is for this machine to say, and is recorded.
    assert parts[0].holds and parts[2].holds and parts[4].holds, result.status


def endless(shape):
    """A random model whose greedy texts never end: the end has a logit of 0, and something else is likelier."""
    config, weights, tokenizer = tiny_llama(**shape, tied=True)
    weights["model.embed_tokens.weight"][0] = 0
    return config, weights, tokenizer


def prompt(engine, number, length):
    rng = random.Random(number)
    text = " ".join(rng.choice(WORDS) for _ in range(length))
    return engine.vocabulary.text(engine.vocabulary.encode(text)[:length])


def play(model, *, seed, **options):
    engine = Engine(*model, **options)
    lengths = [random.Random(1000 * seed + i).randrange(300, 1200) for i in range(REQUESTS)]
    requests = [
        Sample(Prefix(prompt(engine, 1000 * seed + i, length)), "m", i, TOKENS, temperature=0.0)
        for i, length in enumerate(lengths)
    ]
    coming = arrivals(requests, every=0.7 * (mean(lengths) + TOKENS), seed=seed)
    return serve(engine, coming, clock=time.process_time)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def said(played):
    return "; ".join(f"{name}: {told(runs)}" for name, runs in played.items())


def told(runs):
    one = together(runs)
    return (
        f"all gaps p50 {one.gap(0.5, clock=1) * 1e3:.0f} ms, p99 {one.gap(0.99, clock=1) * 1e3:.0f} ms "
        f"({one.gap(0.99, clock=0):.0f} tokens through the model), first token p50 {one.first(0.5, clock=1) * 1e3:.0f} "
        f"ms ({one.first(0.5, clock=0):.0f}), {one.drawn / one.seconds:.0f} tokens a second in {one.steps} steps"
    )


def together(runs):
    """All runs as one."""
    numbers = [sum(getattr(run, name) for run in runs) for name in ("steps", "computed", "drawn", "seconds")]
    return Played(tuple(service for run in runs for service in run.services), *numbers)


def shorter(played, *, clock) -> Part:
    """clock 0: tokens put through the model, 1: seconds."""
    scale, unit, what = ((1, "tokens", "tokens put through the model"), (1e3, "ms", "seconds"))[clock]
    numbers, sentences = {}, []
    for share, name in ((0.99, "p99"), (1, "most")):
        found = {kind: together(runs).longest(share, clock=clock) * scale for kind, runs in played.items()}
        numbers |= {f"{name}, {kind}": value for kind, value in found.items()}
        sentences.append(f"{name}: " + ", ".join(f"{value:.0f} ({kind})" for kind, value in found.items()))
    holds = all(
        numbers[f"{name}, {budget}"] < numbers[f"{name}, prefill first"]
        for name in ("p99", "most")
        for budget in BUDGETS
    )
    return Part(
        f"the longest wait of a text is shorter than with prefill first, at p99 over texts and at most, in {what}",
        holds,
        f"Over all seeds, in {unit}, by budget: {'; '.join(sentences)}.", numbers,
    )  # fmt: skip


def bounded(played) -> Part:
    most = {str(c): max(run.gap(1, clock=0) for run in played[str(c)]) for c in BUDGETS}
    return Part(
        "no wait is longer than the budget of a step", all(most[str(c)] <= c for c in BUDGETS),
        "Longest, in tokens put through the model: " + ", ".join(f"{c}: {n:.0f}" for c, n in most.items()) + ".", most,
    )  # fmt: skip


def beside() -> Part:
    """The chunk and its rows are a number of tokens that the kernels like, as the paper has it."""
    model, found = endless(LARGE), []
    for rows in ROWS:
        engine = Engine(*model, step_tokens=512, kv_bytes=1 << 28)
        texts = [prompt(engine, i, STEP - rows) for i in range(CHUNKS)]
        found.append(riding(engine, texts, rows=rows, clock=time.process_time))
    cells = ", ".join(
        f"{one.rows} rows: {1e3 * one.alone:.1f} ms alone, {1e3 * (one.both - one.chunk):.1f} ms beside "
        f"({one.ratio:.0%})"
        for one in found
    )
    return Part(
        "decoding a token beside a chunk takes less processor time than in a step without one",
        all(one.ratio < 1 for one in found),
        f"Random Llama of 6 layers and 768 channels, chunk and rows {STEP} tokens together, medians of {CHUNKS} steps: "
        f"{cells}.", {str(one.rows): one.ratio for one in found},
    )  # fmt: skip


def alike(played) -> Part:
    texts = {name: [[service.text for service in run.services] for run in runs] for name, runs in played.items()}
    truth = texts["prefill first"]
    count = len(SEEDS) * REQUESTS
    equal = {
        name: sum(a == b for one, other in zip(found, truth, strict=True) for a, b in zip(one, other, strict=True))
        for name, found in texts.items()
    }
    return Part(
        "greedy texts are the same for every budget", all(n == count for n in equal.values()),
        ", ".join(f"{name}: {n} of {count}" for name, n in equal.items()) + ".",
        {name: float(n) for name, n in equal.items()},
    )  # fmt: skip
