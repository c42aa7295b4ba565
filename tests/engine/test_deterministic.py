"""Deterministic mode: the bits of a request do not depend on its neighbours, nor on how its prefix came to be held."""

import random

import pytest
import torch

from outthink.core.errors import Unsupported
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine import settings as settings_module
from outthink.engine.engine import Engine
from outthink.testing.tiny_llama import tiny_llama

WORDS = ("the cat ", "sat\n", "on the mat, ", "answer: 12\n", "ünï", "dog ")


def make(**options):
    shape = {name: options.pop(name) for name in ("reward", "layers", "wide", "heads", "kv_heads") if name in options}
    return Engine(*tiny_llama(**shape, context=192), deterministic=True, **options)


def questions(rng, count):
    """Chains of one to four pieces with shared roots, unlike lengths, and all sorts of knobs."""
    roots = [Prefix("".join(rng.choices(WORDS, k=k))) for k in (1, 3, 9, 20)]
    for number in range(count):
        prefix = rng.choice(roots)
        for _ in range(rng.randrange(3)):
            prefix = prefix.extend("".join(rng.choices(WORDS, k=rng.randrange(1, 5))))
        yield Sample(
            prefix,
            "m",
            number,
            max_tokens=rng.randrange(1, 40),
            temperature=rng.choice([0.0, 0.7, 1.0, 1.5]),
            top_p=rng.choice([1.0, 0.8]),
            stop=rng.choice([(), ("\n",), ("at", "the")]),
            logprobs=True,
        )


def crowd(engine, requests, rng):
    """Serve `requests` in a random order, arriving at random moments, among others that are cancelled now and then."""
    waiting, replies, noise = list(enumerate(requests)), {}, 0
    rng.shuffle(waiting)
    others = list(questions(rng, 30))
    while waiting or len(engine):
        for _ in range(rng.choice([0, 1, 2, 7])):
            if not waiting:
                break
            engine.submit(*waiting.pop())
            if rng.random() < 0.3:
                noise += 1
                engine.submit(("other", noise), rng.choice(others))
            if noise and rng.random() < 0.3:
                engine.cancel(("other", rng.randrange(1, noise + 1)))
        for done in engine.step():
            if not isinstance(done.key, tuple):
                replies[done.key] = done.reply
    return [replies[number] for number in range(len(requests))]


SHAPES = ({}, {"heads": 3, "kv_heads": 3, "wide": 37}, {"heads": 4, "kv_heads": 1, "layers": 3})


@pytest.mark.parametrize("shape", SHAPES, ids=("plain", "odd", "deep"))
def test_drafts_have_the_same_bits_in_any_company(shape):
    """Texts, tokens and the bits of every log-probability; rows, memory and the size of prefill steps vary too."""
    requests = list(questions(random.Random(5), 24))
    lonely = make(rows=1, **shape)
    alone = [lonely_reply(lonely, request) for request in requests]
    for attempt, options in enumerate(({"rows": 64}, {"rows": 5, "step_tokens": 16}, {"kv_bytes": 300_000})):
        assert crowd(make(**options, **shape), requests, random.Random(attempt)) == alone


@pytest.mark.slow
def test_two_threads_give_the_same_bits_in_any_company():
    """Slow where others want the cores too: threads of one product wait for each other."""
    torch.set_num_threads(2)
    try:
        test_drafts_have_the_same_bits_in_any_company({})
    finally:
        torch.set_num_threads(1)


def lonely_reply(engine, request):
    engine.submit(0, request)
    while True:
        for done in engine.step():
            return done.reply


def test_a_chain_has_the_same_bits_held_or_forgotten():
    """Children of children, their prefixes in the cache from decoding, against an engine that has to read them all."""
    engine = make(rows=8)
    prefix = Prefix("the cat sat on ")
    for depth in range(6):
        request = Sample(prefix, "m", depth, max_tokens=12, logprobs=True, stop=("e",))
        warm, cold = lonely_reply(engine, request), lonely_reply(make(rows=2), request)
        assert warm == cold
        prefix = warm.prefix.extend(" the ")


def test_rewards_have_the_same_bits_in_any_company():
    rng = random.Random(2)
    texts = [request.prefix for request in questions(rng, 40)]
    lonely = make(reward=True, rows=1)
    alone = [lonely_reply(lonely, Score(text, "m", step="\n")) for text in texts]
    together = make(reward=True)
    for number, text in enumerate(texts):
        together.submit(number, Score(text, "m", step="\n"))
    replies = {}
    while len(together):
        replies |= {done.key: done.reply for done in together.step()}
    assert [replies[number] for number in range(40)] == alone


def test_a_machine_that_cannot_is_found_out(monkeypatch):
    monkeypatch.setattr(settings_module, "steady", lambda *_, **__: False)
    with pytest.raises(Unsupported, match="bits"):
        make()


def test_the_probe_notices_a_product_that_depends_on_its_number_of_rows():
    from outthink.engine.probe import steady
    from outthink.engine.runner import Runner

    config, weights, _ = tiny_llama(hidden=48, wide=100)
    run = Runner(config, weights, context=128, deterministic=True)
    assert steady(run, context=128)
    plain = run._headed
    run._headed = lambda hidden: plain(hidden) * (1 + 1e-6 * len(hidden))
    assert not steady(run, context=128)


def test_reduced_precision_is_refused():
    with pytest.raises(Unsupported, match="float32"):
        make(dtype="bfloat16")
