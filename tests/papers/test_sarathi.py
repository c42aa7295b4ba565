"""Sarathi without a clock: waits in tokens put through the model, against prefill-first on the same engine."""

import random
from itertools import count

import pytest

from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.engine.engine import Engine
from outthink.papers.serving.sarathi import Arrival, arrivals, quantile, riding, serve
from outthink.testing.tiny_llama import tiny_llama

WORDS = "the cat sat on mat dog ate rat and then ran answer".split()


@pytest.fixture(scope="module")
def model():
    config, weights, tokenizer = tiny_llama(tied=True, context=512)
    weights["model.embed_tokens.weight"][0] = 0  # greedy texts never end
    return config, weights, tokenizer


def requests(n, *, tokens=24):
    made = []
    for i in range(n):
        rng = random.Random(i)
        text = f"{i} " + " ".join(rng.choice(WORDS) for _ in range(rng.randrange(20, 150)))
        made.append(Sample(Prefix(text), "m", i, tokens, temperature=0.0))
    return made


def play(model, *, every=150.0, n=12, **options):
    ticks = count()
    return serve(
        Engine(*model, **options), arrivals(requests(n), every=every, seed=3), clock=lambda: float(next(ticks))
    )


@pytest.fixture(scope="module")
def played(model):
    options = {64: {"step_tokens": 64}, 128: {"step_tokens": 128}, "whole": {"step_tokens": 9999},
               "first": {"mixed": False}}  # fmt: skip
    return {name: play(model, **more) for name, more in options.items()}


def test_greedy_texts_are_the_same_for_every_budget_and_order(played):
    texts = {name: [service.text for service in one.services] for name, one in played.items()}
    assert texts[64] == texts[128] == texts["whole"] == texts["first"] and len(set(texts[64])) == 12


def test_no_wait_is_longer_than_the_budget(played):
    assert played[64].gap(1, clock=0) <= 64 and played[128].gap(1, clock=0) <= 128


def test_prefill_first_makes_texts_wait_for_whole_prompts(played):
    longest = max(len(request.prefix.text) for request in requests(12)) / 4
    assert played["first"].gap(1, clock=0) > longest > 128
    assert played["first"].gap(0.99, clock=0) > 2 * played[128].gap(0.99, clock=0)


def test_small_budgets_take_more_steps(played):
    assert played[64].steps > played[128].steps > played["whole"].steps


def test_the_model_computes_every_token_once_whatever_the_order(played):
    """Every prompt and every drawn token but the last of a text; the end of a prompt may be seen again."""
    for one in played.values():
        assert one.drawn == 12 * 24 and all(len(service.gaps) == 23 for service in one.services)
        assert abs(one.computed - played[64].computed) <= 12 * 16


def test_rows_wait_while_prompts_are_read_first_and_only_then(model):
    """One text is being written when another prompt comes: its next token comes after that prompt, and then in turn."""
    first, second = requests(2)
    for mixed, waits in ((False, True), (True, False)):
        engine = Engine(*model, step_tokens=32, mixed=mixed)
        length = len(engine.vocabulary.encode(second.prefix.text, root=True))
        read = len(engine.vocabulary.encode(first.prefix.text, root=True))
        one, _ = serve(engine, [Arrival(0, first), Arrival(read + 5, second)]).services
        gaps = [work for work, _ in one.gaps]
        assert (max(gaps) >= length) == waits
        assert mixed or sorted(gaps)[-2] <= 2, "one wait, and otherwise a token a step for each row"


def test_memory_that_is_short_stops_nobody_for_good(model):
    one = play(model, mixed=False, rows=4, kv_bytes=500_000)
    assert one.drawn == 12 * 24


def test_a_scripted_clock_gives_what_riding_costs(model):
    """Steps alone take 2, those with a chunk 10, those with both 11: a token beside a chunk costs half."""
    engine, ticks = Engine(*model), iter([x for i in range(5) for x in (0, 2, 0, 10, 0, 11)])
    prompts = ["the cat sat on the mat and ate"] * 5
    found = riding(engine, prompts, rows=3, clock=lambda: float(next(ticks)))
    assert (found.alone, found.chunk, found.both, found.ratio) == (2, 10, 11, 0.5)
    assert len(engine) == 0 and engine.computed > 0


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.76, 4), (1, 4), (0, 1)])
def test_quantiles(share, value):
    assert quantile([4, 2, 1, 3], share) == value


def test_no_quantile_of_nothing():
    with pytest.raises(InvalidInput, match="at least one"):
        quantile([], 0.5)
