"""Speculative decoding: the rule changes no distribution, and a draft model changes nothing but the time."""

import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.monitor import GO, Force, Halt
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.acceptance import accept, chances, pick
from outthink.engine.checkpoint import save_checkpoint
from outthink.engine.engine import Engine
from outthink.engine.jobs import Finished, Piece, Waits
from outthink.engine.llama import Llama
from outthink.engine.sampler import truncated
from outthink.testing.tiny_llama import tiny_llama, tiny_tokenizer

PROMPT = Prefix("the cat sat on the mat.\n")
DRAFT = {"layers": 1, "hidden": 32, "wide": 60, "seed": 3}
PARTS = 12


def draft(**shape):
    return tiny_llama(**DRAFT | shape)


def drafted(lookahead=4, **options):
    return Engine(*tiny_llama(), draft=draft(), lookahead=lookahead, **{"rows": 16} | options)


def near(noise):
    """A draft model that is wrong now and then: the model with noise in its weights."""
    config, weights, tokenizer = tiny_llama()
    generator = torch.Generator().manual_seed(5)
    mixed = {
        name: weight + noise * weight.std() * torch.randn(weight.shape, generator=generator)
        for name, weight in weights.items()
    }
    return config, mixed, tokenizer


def endless():
    """The model with no token that ends a text."""
    config, weights, tokenizer = tiny_llama()
    return replace(config, eos_token_ids=()), weights, tokenizer


def sample(prefix=PROMPT, seed=0, **knobs):
    return Sample(prefix, "m", seed, **{"max_tokens": 12} | knobs)


def finished(engine):
    """Step until nothing is left; what has finished, in that order."""
    events = []
    while len(engine):
        events += engine.step()
    return [event for event in events if isinstance(event, Finished)]


def serve(engine, *requests, **options):
    """Serve the requests together; the drafts."""
    for number, request in enumerate(requests):
        engine.submit(number, request, **options)
    done = {event.key: event for event in finished(engine)}
    return [done[number].reply for number in range(len(requests))]


# The rule, by enumeration.

shares = st.lists(st.integers(0, PARTS), min_size=3, max_size=3).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), PARTS], strict=True)]
)


@given(shares, shares)
@settings(max_examples=150, deadline=None)
def test_what_comes_out_is_distributed_as_wanted_exactly(wanted, drawn):
    """All weights are twelfths, so what happens changes only at known fractions of each noise, and the middles of the
    intervals between them say it all: the chances that come out are fractions, equal to those that were wanted."""
    p, q = (torch.tensor(parts, dtype=torch.float32) / PARTS for parts in (wanted, drawn))
    left = sum(max(0, a - b) for a, b in zip(wanted, drawn, strict=True)) or 1
    out = Counter()
    for proposed, weight in enumerate(drawn):
        if not weight:
            continue
        grid = np.array([*product(np.arange(weight) + 0.5, np.arange(left) + 0.5)]).T / [[weight], [left]]
        count = grid.shape[1]
        tokens, _ = accept(
            p.expand(count, -1), q.expand(count, -1), torch.full((count,), proposed),
            counts=np.ones(count, dtype=np.int64), noise=np.ascontiguousarray(grid),
        )  # fmt: skip
        for token in tokens.tolist():
            out[token] += Fraction(weight, PARTS) / count
    assert [out[token] for token in range(4)] == [Fraction(parts, PARTS) for parts in wanted]


@given(shares, shares)
def test_a_token_stands_as_often_as_can_be(wanted, drawn):
    """The chance that it stands is the sum of min(p, q): no rule that keeps p can do better."""
    p, q = (torch.tensor([parts], dtype=torch.float32) / PARTS for parts in (wanted, drawn))
    stands = Fraction(0)
    for proposed, weight in enumerate(drawn):
        for part in range(weight):
            noise = np.array([[(part + 0.5) / weight], [0.5]])
            token, _ = accept(p, q, torch.tensor([proposed]), counts=np.array([1]), noise=noise)
            # A token that is turned down is never drawn instead: p has no more of it than q.
            stands += Fraction(weight, PARTS) / weight * (int(token[0]) == proposed)
    assert stands == sum(Fraction(min(a, b), PARTS) for a, b in zip(wanted, drawn, strict=True))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_text_takes_what_stands_and_one_token_more(seed, counts):
    """Texts of unlike many places at once, against each place by itself."""
    rng, n = np.random.default_rng(seed), sum(counts)
    p, q = (torch.from_numpy(rng.dirichlet(np.full(5, 0.5), n).astype(np.float32)) for _ in range(2))
    noise, proposed = rng.random((2, n)), pick(q, rng.random(n))
    tokens, taken = accept(p, q, proposed, counts=np.array(counts), noise=noise)
    at = 0
    for count, took in zip(counts, taken.tolist(), strict=True):
        for place in range(at, at + took):
            one = slice(place, place + 1)
            alone, _ = accept(p[one], q[one], proposed[one], counts=np.array([1]), noise=noise[:, one])
            assert alone[0] == tokens[place]
            assert place == at + took - 1 or tokens[place] == proposed[place]
        assert (
            took == count
            or noise[0, at + took - 1] * q[at + took - 1, proposed[at + took - 1]]
            >= (p[at + took - 1, proposed[at + took - 1]])
        )
        at += count


@pytest.mark.parametrize(("temperature", "top_p", "min_p"), [(1.0, 1.0, 0.0), (0.6, 0.8, 0.0), (1.7, 0.9, 0.1)])
def test_chances_are_those_that_the_sampler_draws_from(temperature, top_p, min_p):
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1)) * 3
    knobs = {
        name: np.full(4, value, dtype=np.float32)
        for name, value in (("temperature", temperature), ("top_p", top_p), ("min_p", min_p))
    }
    left = truncated((logits / temperature).softmax(-1), torch.full((4,), top_p), torch.full((4,), min_p))
    assert torch.allclose(chances(logits, **knobs), left / left.sum(-1, keepdim=True), atol=1e-6)
    knobs["temperature"][1] = 0.0
    mixed = chances(logits, **knobs)
    assert mixed[1].argmax() == logits[1].argmax() and mixed[1].max() == 1 == mixed[1].sum()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_no_chances(temperature, broken):
    logits = torch.zeros(3, 7)
    logits[1, 4] = broken
    logits[2] = float("-inf")
    knobs = {"temperature": temperature, "top_p": 0.9, "min_p": 0.1}
    found = chances(logits, **{name: np.full(3, value, dtype=np.float32) for name, value in knobs.items()})
    assert found[0].isfinite().all() and found[1:].isnan().all()


def test_noise_at_the_edge_picks_nothing_impossible():
    weights = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    below = float(np.nextafter(1.0, 0.0))
    assert [int(pick(weights, np.array([noise]))[0]) for noise in (0.0, 0.29, 0.31, below)] == [1, 1, 3, 3]


# The engine.


def exact(knobs, depth):
    """The chance of every text of `depth` tokens (shorter where it ends), by the model as a plain module."""
    config, weights, tokenizer = tiny_llama()
    model = Llama(config)
    model.load_state_dict(weights)
    known, done = {(): 1.0}, {}
    root = tokenizer.encode(PROMPT.piece).ids
    array = {name: np.array([value], dtype=np.float32) for name, value in knobs.items()}
    for _ in range(depth):
        longer = {}
        for text, chance in known.items():
            with torch.no_grad():
                logits = model.logits(model.hidden(torch.tensor([[*root, *text]])))[:, -1]
            for token in (found := chances(logits, **array)[0]).nonzero()[:, 0].tolist():
                (done if token == 0 else longer)[*text, token] = chance * float(found[token])
        known = longer
    return done | known


@pytest.mark.parametrize("knobs", [
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.35}, {"temperature": 1.6, "top_p": 0.25, "min_p": 0.0},
    {"temperature": 0.7, "top_p": 0.6, "min_p": 0.1},
])  # fmt: skip
def test_texts_of_three_tokens_are_as_frequent_as_the_model_says(knobs):
    """4,000 seeds against the exact chances, with a draft model that is wrong now and then: a right engine fails with
    probability 1e-3, and the seeds are set.  Tokens two and three are of one step: one stands or is drawn instead, then
    the next."""
    expected, count = exact(knobs, 3), 4000
    engine = Engine(*tiny_llama(), rows=256, draft=near(0.15))
    found = Counter(
        reply.tokens + ((0,) if reply.finish == "end" else ())
        for reply in serve(engine, *(sample(seed=seed, max_tokens=3, **knobs) for seed in range(count)))
    )
    assert set(found) <= set(expected) and len(expected) > 8
    often = [text for text, chance in expected.items() if chance * count >= 5]
    seen, wanted = [found[text] for text in often], [expected[text] * count for text in often]
    seen, wanted = [*seen, count - sum(seen)], [*wanted, max(count - sum(wanted), 1e-9)]
    assert chisquare(seen, np.array(wanted) * count / sum(wanted)).pvalue > 1e-3
    assert 0.2 < engine.speculation.rate < 0.9


def test_first_tokens_of_the_whole_vocabulary_are_as_frequent_as_the_model_says():
    expected, count = exact({"temperature": 1.0, "top_p": 1.0, "min_p": 0.0}, 1), 20_000
    found = Counter(
        reply.tokens or (0,)
        for reply in serve(drafted(rows=256), *(sample(seed=s, max_tokens=1) for s in range(count)))
    )
    often = [text for text, chance in expected.items() if chance * count >= 5]
    seen, wanted = [found[text] for text in often], [expected[text] * count for text in often]
    seen, wanted = [*seen, count - sum(seen)], [*wanted, count - sum(wanted)]
    assert chisquare(seen, np.array(wanted) * count / sum(wanted)).pvalue > 1e-3


def test_greedy_texts_are_those_without_a_draft():
    prompts = [Prefix(text) for text in ("the cat", "the dog ate the rat,\n", "answer: 12", "mat " * 12)]
    requests = [sample(prompt, temperature=0.0, max_tokens=40, logprobs=True) for prompt in prompts]
    plain = serve(Engine(*tiny_llama()), *requests)
    for lookahead in (1, 3, 7, 20):
        for mine, other in zip(serve(drafted(lookahead), *requests), plain, strict=True):
            assert (mine.tokens, mine.finish) == (other.tokens, other.finish)
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_a_draft_that_is_the_model_is_always_right_and_changes_no_text():
    engine = Engine(*endless(), rows=8, draft=tiny_llama(), lookahead=4)
    requests = [sample(seed=seed, max_tokens=41, min_p=0.02) for seed in range(30)]
    assert serve(engine, *requests) == serve(Engine(*endless(), rows=8), *requests)
    counters = engine.speculation
    assert counters.proposed > 500 and counters.rate > 0.98
    assert counters.steps < 0.25 * (counters.accepted + counters.steps)


def test_the_text_of_a_seed_depends_neither_on_lookahead_nor_on_company():
    requests = [sample(Prefix("the dog ate " * (1 + i % 5)), i, max_tokens=3 + i % 30, temperature=(i % 3) / 2,
                       top_p=1 - (i % 4) / 10, stop=("\n",) * (i % 2)) for i in range(40)]  # fmt: skip
    alone = [serve(drafted(), request)[0] for request in requests]
    for options in ({"lookahead": 1}, {"lookahead": 9}, {"rows": 3}, {"step_tokens": 16}, {"kv_bytes": 500_000}):
        assert serve(drafted(**options), *requests) == alone


def test_a_text_is_the_same_with_pauses():
    whole = serve(drafted(), *(sample(seed=seed, max_tokens=40) for seed in range(6)))
    engine, may, replies = drafted(), dict.fromkeys(range(6), 3), {}
    for seed in range(6):
        engine.submit(seed, sample(seed=seed, max_tokens=40), allowed=lambda seed=seed: may[seed])
    rng, pauses = random.Random(1), 0
    while len(engine):
        for event in engine.step():
            if isinstance(event, Waits):
                pauses += 1
                may[event.key] += rng.randrange(1, 8)
                engine.resume(event.key)
            elif isinstance(event, Finished):
                assert event.generated <= may[event.key]
                replies[event.key] = event.reply
    assert pauses > 10 and [replies[seed] for seed in range(6)] == whole


def test_pieces_add_up_to_the_text():
    engine = drafted()
    for seed in range(8):
        engine.submit(seed, sample(seed=seed, max_tokens=30), watched=lambda: True)
    said, texts = Counter(), {}
    pieces = {seed: "" for seed in range(8)}
    while len(engine):
        for event in engine.step():
            if isinstance(event, Piece):
                pieces[event.key] += event.text
                said[event.key] += 1
            else:
                texts[event.key] = event.reply.text
                pieces[event.key] += event.rest
    assert pieces == texts and max(said.values()) > 2


class Seen:
    """Remembers all it is shown; halts or forces at its token number `at`."""

    def __init__(self, at, action):
        self.at, self.action = at, action

    def start(self):
        return ()

    def step(self, memory, text, logprob):
        memory = (*memory, text)
        return memory, self.action if len(memory) == self.at else GO


@pytest.mark.parametrize("at", range(1, 9))
def test_a_monitor_sees_every_token_in_order_and_may_end_or_turn_a_text_anywhere(at, finish):
    """The model is its own draft, so several tokens come in a step, and what comes after the action is dropped."""
    engine = Engine(*endless(), rows=4, draft=tiny_llama(), lookahead=5)
    (free,) = serve(engine, sample(seed=21, max_tokens=20, stop=()))
    assert len(free.tokens) > 9
    spelled = [engine.vocabulary.text([token]) for token in free.tokens]
    for back in (0, 1, 3, 99):
        engine.submit(0, sample(seed=21, max_tokens=20, monitor=Seen(at, Halt(back)), logprobs=True))
        halted = finish(engine)[0]
        kept = free.tokens[: max(0, at - back)]
        assert halted.reply.tokens == kept and len(halted.reply.logprobs) == len(kept)
        assert (halted.generated, halted.reply.finish, list(halted.reply.memory)) == (at, "monitor", spelled[:at])
    (turned,) = serve(engine, sample(seed=21, max_tokens=20, monitor=Seen(at, Force("dog"))))
    forced = engine.vocabulary.encode("dog")
    assert turned.tokens[: at + len(forced)] == free.tokens[:at] + forced
    again = sample(seed=21, max_tokens=20, monitor=Seen(at, Force("dog")))
    assert serve(Engine(*endless(), rows=4), again)[0] == turned


def test_children_find_what_the_draft_model_has_read():
    """A child of a long text: the draft model reads what is new, not the text again."""
    engine = Engine(*endless(), draft=draft())
    long = Prefix("the cat sat on the mat. " * 4)
    (first,) = serve(engine, sample(long, seed=2, max_tokens=25))
    before = engine.speculation.read
    serve(engine, sample(first.prefix, seed=3, max_tokens=1))
    assert engine.speculation.read - before <= 2


def test_siblings_are_read_once():
    engine = drafted()
    serve(engine, *(sample(Prefix("the cat sat on the mat. " * 4), seed=seed, max_tokens=1) for seed in range(16)))
    assert engine.speculation.read == len(engine.vocabulary.encode("the cat sat on the mat. " * 4))


def test_without_memory_for_drafts_texts_are_drawn_all_the_same(monkeypatch):
    """A draft that says token 0 for certain: as slow as none, and greedy texts are those of the model."""
    from outthink.engine import speculative

    real = speculative.Pages
    monkeypatch.setattr(speculative, "Pages", lambda *shape, count, **rest: real(*shape, count=2, **rest))
    requests = [sample(seed=seed, temperature=seed % 2, max_tokens=30) for seed in range(12)]
    engine = drafted()
    replies = serve(engine, *requests)
    plain = serve(Engine(*tiny_llama(), rows=16), *requests)
    assert [reply.tokens for reply in replies[::2]] == [reply.tokens for reply in plain[::2]]
    assert all(reply.text for reply in replies) and engine.speculation.rate < 0.5


@pytest.mark.parametrize("when", [3, 8, 15, 30])
def test_a_draft_that_runs_out_of_memory_costs_no_text(monkeypatch, when):
    """The system has no memory for a pass of the draft model: greedy texts are those of the model."""
    engine, calls = drafted(), []
    requests = [sample(seed=seed, temperature=seed % 2, max_tokens=30) for seed in range(8)]
    real = engine._drafter._runner.run

    def run(*arguments, **options):
        calls.append(0)
        if len(calls) >= when:
            raise RuntimeError("can't allocate memory")
        return real(*arguments, **options)

    monkeypatch.setattr(engine._drafter._runner, "run", run)
    replies = serve(engine, *requests)
    plain = serve(Engine(*tiny_llama(), rows=16), *requests)
    assert [reply.tokens for reply in replies[::2]] == [reply.tokens for reply in plain[::2]]
    assert len(calls) >= when and all(reply.finish for reply in replies)


def test_logits_of_the_model_that_are_no_numbers_fail_their_request_only(monkeypatch):
    engine = drafted()
    real, hurt = engine.runner.logits, []

    def logits(hidden):
        found = real(hidden).clone()
        if len(hidden) > 20:  # all texts, several places each
            found[0] = float("nan")  # what the first of the rows is judged by
            hurt.append(len(hidden))
        return found

    monkeypatch.setattr(engine.runner, "logits", logits)
    for seed in range(6):
        engine.submit(seed, sample(seed=seed, max_tokens=40))
    done = finished(engine)
    failed = [event for event in done if event.error is not None]
    assert len(done) == 6 and hurt and 0 < len(failed) < 6
    assert all(isinstance(event.error, FloatingPointError) and event.reply is None for event in failed)


def test_nothing_of_the_draft_model_is_left_when_all_is_done():
    engine, rng = drafted(rows=4, kv_bytes=300_000), random.Random(0)
    for number in range(60):
        engine.submit(
            number, sample(Prefix(rng.choice(["the", "the dog " * 5])), number, max_tokens=rng.randrange(1, 50))
        )
        if number % 3 == 0:
            engine.cancel(rng.randrange(number + 1))
        engine.step()
    while len(engine):
        engine.step()
    forest = engine._drafter._forest
    assert not engine._drafter._branches and not engine._drafter._reading
    forest.clear()
    assert forest.usage().pages == 0


def test_a_child_of_a_draft_and_scores_are_what_they_are_without():
    engine, plain = drafted(), Engine(*tiny_llama())
    (reply,) = serve(engine, sample(seed=4, max_tokens=20, logprobs=True))
    (scored,) = serve(plain, Score(reply.prefix, "m", of="logprob"))
    assert scored.value == pytest.approx(sum(reply.logprobs), abs=1e-4)
    assert serve(engine, Score(reply.prefix, "m", of="logprob"))[0].value == pytest.approx(scored.value, abs=1e-4)


def test_likeliest_tokens_and_rewards_on_the_way_are_those_without_a_draft():
    """Greedy texts of the model drafted by itself: every place but the first is one that was proposed."""
    head = torch.randn(48, generator=torch.Generator().manual_seed(2)), torch.tensor([0.3])
    told, scored, computed = [], [], []
    for options in ({}, {"draft": tiny_llama(), "lookahead": 5}):
        engine = Engine(*endless(), value_head=head, **options)
        engine.submit(0, sample(temperature=0.0, max_tokens=30, hidden=True), top=3)
        (done,) = finished(engine)
        told.append((done.top[0], done.top[1], done.hidden, done.reply.tokens))
        engine.submit(1, Score(done.reply.prefix, "m", step="a"))
        (done,) = finished(engine)
        scored.append((done.reply.value, *done.reply.steps))
        computed.append(done.computed)
    assert torch.equal(told[0][0], told[1][0]) and told[0][3] == told[1][3] and len(told[0][3]) == 30
    assert (told[0][1] - told[1][1]).abs().max() < 1e-4 and (told[0][2] - told[1][2]).abs().max() < 1e-4
    assert scored[0] == pytest.approx(scored[1], abs=1e-4) and computed == [0, 0]


def test_a_folder_is_a_draft_too(tmp_path):
    for name, (config, weights, _) in (("model", tiny_llama()), ("draft", draft())):
        save_checkpoint(tmp_path / name, config, weights=weights, tokenizer=tiny_tokenizer())
    engine = Engine.load(tmp_path / "model", draft=tmp_path / "draft", lookahead=2)
    assert engine.generate(["the"], max_tokens=9) == drafted().generate(["the"], max_tokens=9)
    assert engine.speculation.proposed and Engine(*tiny_llama()).speculation is None


def test_the_context_is_what_both_models_were_made_for():
    assert drafted().context == 128
    assert Engine(*tiny_llama(), draft=draft(context=48)).context == 48


def test_drafts_that_cannot_be_are_refused():
    config, weights, tokenizer = draft()
    other = tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(["<more>"])
    for wrong, error, message in (
        (tiny_llama(reward=True), Unsupported, "rewards"),
        ((config, weights, other), InvalidInput, "tokenizer"),
    ):
        with pytest.raises(error, match=message):
            Engine(*tiny_llama(), draft=wrong)
    with pytest.raises(InvalidInput, match="lookahead"):
        drafted(lookahead=0)
    with pytest.raises(Unsupported, match="draws nothing"):
        Engine(*tiny_llama(reward=True), draft=draft())
