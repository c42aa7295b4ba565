"""Requests through the engine: continuing, stopping, scoring, sharing, cancelling."""

import math
from dataclasses import dataclass

import pytest
import torch

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.monitor import GO, Force, Halt
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.checkpoint import CheckpointError
from outthink.engine.engine import Engine
from outthink.engine.llama import Llama
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")


def sample(prefix=PROMPT, seed=0, **knobs):
    return Sample(prefix, "m", seed, **{"max_tokens": 12} | knobs)


def run(engine, finish, *requests):
    for number, request in enumerate(requests):
        engine.submit(number, request)
    done = finish(engine)
    return [done[number].reply for number in range(len(requests))]


@pytest.fixture(scope="module")
def plain():
    """The same model as a plain module: logits of a whole text at once."""
    config, weights, _ = tiny_llama()
    model = Llama(config)
    model.load_state_dict(weights)

    @torch.no_grad()
    def chances(tokens):
        return model.logits(model.hidden(torch.tensor([tokens])))[0].log_softmax(-1)

    return chances


def test_greedy_is_the_argmax_of_the_plain_model(engine, finish, plain):
    (draft,) = run(engine, finish, sample(temperature=0.0, logprobs=True))
    tokens = list(engine.vocabulary.encode(PROMPT.piece))
    for token, logprob in zip(draft.tokens, draft.logprobs, strict=True):
        chances = plain(tokens)[-1]
        assert token == int(chances.argmax()) and logprob == pytest.approx(float(chances.max()), abs=1e-4)
        tokens.append(token)
    assert draft.text == engine.vocabulary.text(draft.tokens) and draft.prefix.text == PROMPT.text + draft.text


def test_logprobs_are_those_before_temperature_and_truncation(engine, finish, plain):
    (draft,) = run(engine, finish, sample(temperature=2.0, top_p=0.9, min_p=0.01, logprobs=True))
    prompt = engine.vocabulary.encode(PROMPT.piece)
    chances = plain([*prompt, *draft.tokens])
    expected = [float(chances[len(prompt) - 1 + i, token]) for i, token in enumerate(draft.tokens)]
    assert draft.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_batch_gives_what_each_gives_alone(finish):
    """Unlike prompts, lengths and knobs; more requests than rows; greedy rows beside drawn ones."""
    requests = [sample(Prefix("the dog ate " * (1 + i % 5)), i, max_tokens=3 + i % 9, temperature=(i % 3) / 2,
                       top_p=1 - (i % 4) / 10, stop=("\n",) * (i % 2)) for i in range(40)]  # fmt: skip
    together = run(Engine(*tiny_llama(), rows=16), finish, *requests)
    for request, draft in zip(requests, together, strict=True):
        assert run(Engine(*tiny_llama(), rows=16), finish, request)[0] == draft


def test_drafts_end_at_the_end_token_which_is_paid_but_not_in_the_text(engine, finish):
    for seed in range(200):
        engine.submit(seed, sample(seed=seed, max_tokens=60))
    ends = [done for done in finish(engine).values() if done.reply.finish == "end"]
    assert len(ends) > 20
    for done in ends:
        assert 0 not in done.reply.tokens and done.generated == len(done.reply.tokens) + 1


def test_a_stop_string_that_spans_tokens_ends_the_draft_and_stays_in_it(engine, finish):
    free = [engine.generate([PROMPT.piece], max_tokens=30, seed=seed)[0][0] for seed in range(40)]
    checked = 0
    for seed, text in enumerate(free):
        stop = text[5:8]
        if len(stop) < 3 or "\ufffd" in stop:
            continue
        (short,) = engine.generate([PROMPT.piece], max_tokens=30, seed=seed, stop=(stop,))[0]
        assert text.startswith(short) and stop in short and stop not in short[: -len(stop)]
        checked += 1
    assert checked >= 3


def test_a_child_continues_the_very_tokens_and_prefills_nothing_again(engine, finish):
    (draft,) = run(engine, finish, sample(seed=3, max_tokens=6))
    engine.submit("child", sample(draft.prefix, seed=4))
    assert finish(engine)["child"].computed == 0
    cold = Engine(*tiny_llama(), rows=2)
    (again,) = run(cold, finish, sample(draft.prefix, seed=4))
    (warm,) = run(engine, finish, sample(draft.prefix, seed=4))
    assert again == warm


def test_siblings_share_one_prefill(engine, finish):
    for number in range(30):
        engine.submit(number, sample(seed=number))
    computed = sorted(done.computed for done in finish(engine).values())
    assert computed == [0] * 29 + [len(engine.vocabulary.encode(PROMPT.piece))]


def test_an_ancestor_is_computed_once_for_all_who_wait_for_it(judge, finish):
    """64 texts below one prompt that nobody has scored: the prompt is computed for the first of them only."""
    for number in range(64):
        judge.submit(number, Score(PROMPT.extend(f"answer: {number}\n"), "m"))
    prompt = len(judge.vocabulary.encode(PROMPT.piece))
    assert sum(done.computed >= prompt for done in finish(judge).values()) == 1


def test_a_long_prompt_does_not_stall_the_others(finish):
    engine = Engine(*tiny_llama(context=1024), rows=4, step_tokens=64)
    engine.submit("short", sample(max_tokens=10, stop=(), seed=1))
    engine.step()
    engine.submit("long", sample(Prefix("the cat " * 250), max_tokens=2))
    steps = 0
    while "short" not in {done.key for done in engine.step()}:
        steps += 1
    assert steps < 10 and len(engine) == 1
    assert finish(engine)["long"].reply is not None


def test_rewards_are_those_of_the_plain_model_at_every_step(judge, finish):
    config, weights, _ = tiny_llama(reward=True, seed=1)
    model = Llama(config)
    model.load_state_dict(weights)
    text = PROMPT.extend("the dog\nate").extend("\nthe rat\n").extend("and")
    (whole,), (last,) = run(judge, finish, Score(text, "m", step="\n")), run(judge, finish, Score(text, "m"))
    pieces = [judge.vocabulary.encode(node.piece) for node in text.chain()]
    tokens = [token for piece in pieces for token in piece]
    with torch.no_grad():
        rewards = model.logits(model.hidden(torch.tensor([tokens])))[0, :, 0].sigmoid().tolist()
    ends = [i for i in range(len(pieces[0]), len(tokens)) if b"\n" in judge.vocabulary.spelled[tokens[i]]]
    assert len(ends) == 3
    assert whole.steps == pytest.approx([rewards[i] for i in [*ends, len(tokens) - 1]], abs=1e-4)
    assert whole.value == last.value == pytest.approx(rewards[-1], abs=1e-4) == whole.steps[-1]


def test_scoring_a_root_has_no_steps(judge, finish):
    (scored,) = run(judge, finish, Score(PROMPT, "m", step="\n"))
    assert scored.steps == () and 0 <= scored.value <= 1


def test_scores_of_what_was_scored_before_compute_only_what_is_new(judge, finish):
    first = PROMPT.extend("the dog\n")
    run(judge, finish, Score(first, "m", step="\n"))
    second = first.extend("ate\n")
    judge.submit("more", Score(second, "m", step="\n"))
    done = finish(judge)["more"]
    assert done.computed == len(judge.vocabulary.encode("ate\n")) and len(done.reply.steps) == 2


def test_logprob_of_the_last_piece(engine, finish, plain):
    (draft,) = run(engine, finish, sample(seed=5, logprobs=True))
    (plain_draft,) = run(engine, finish, sample(seed=6))
    text = PROMPT.extend("the dog")
    scores = run(engine, finish, Score(draft.prefix, "m", of="logprob"), Score(plain_draft.prefix, "m", of="logprob"),
                 Score(text, "m", of="logprob"), Score(text.extend(""), "m", of="logprob"))  # fmt: skip
    assert scores[0].value == pytest.approx(sum(draft.logprobs), abs=1e-4)
    for scored, prefix in ((scores[1], plain_draft.prefix), (scores[2], text)):
        first = engine.links.of(prefix.parent).end
        tokens = [token for token in engine.links.of(prefix).whole()]
        chances = plain(tokens)
        expected = sum(float(chances[i - 1, tokens[i]]) for i in range(first, len(tokens)))
        assert scored.value == pytest.approx(expected, abs=1e-4)
    assert scores[3].value == 0.0


@dataclass(frozen=True)
class Rule:
    """Halts `back` tokens back after `after` tokens, or forces `force` in place of the first end."""

    after: int = 10**6
    back: int = 0
    force: str = ""

    def start(self):
        return (0, "")

    def step(self, memory, text, logprob):
        count, seen = memory[0] + 1, memory[1] + text
        if text == "" and self.force and self.force not in seen:
            return (count, seen), Force(self.force)
        return (count, seen), Halt(self.back) if count >= self.after else GO


@pytest.mark.parametrize("back", [0, 1, 3, 99])
def test_a_monitor_halts_and_takes_back(engine, finish, back):
    (free,) = run(engine, finish, sample(seed=8, max_tokens=30))
    engine.submit(0, sample(seed=8, max_tokens=30, monitor=Rule(after=5, back=back), logprobs=True))
    done = finish(engine)[0]
    kept = max(0, 5 - back)
    assert done.reply.tokens == free.tokens[:kept] and len(done.reply.logprobs) == kept
    assert (done.reply.finish, done.generated, done.reply.memory[0]) == ("monitor", 5, 5)
    (child,) = run(engine, finish, sample(done.reply.prefix, seed=1))
    (cold,) = run(Engine(*tiny_llama(), rows=2), finish, sample(done.reply.prefix, seed=1))
    assert child == cold


def test_a_monitor_writes_on_where_the_model_would_end(engine, finish):
    forced = 0
    for seed in range(40):
        engine.submit(seed, sample(seed=seed, max_tokens=25, monitor=Rule(force=" then the")))
    for done in finish(engine).values():
        draft = done.reply
        assert done.generated <= 25 and ("\ufffd" in draft.memory[1] or draft.memory[1] == draft.text)
        forced += " then the" in draft.text
        assert draft.finish != "end" or " then the" in draft.text
    assert forced > 5


def test_forced_tokens_are_what_the_model_then_continues(engine, finish, plain):
    for seed in range(30):
        (draft,) = run(engine, finish, sample(seed=seed, max_tokens=20, monitor=Rule(force="dog"), logprobs=True))
        if "dog" in draft.text:
            prompt = engine.vocabulary.encode(PROMPT.piece)
            chances = plain([*prompt, *draft.tokens])
            expected = [float(chances[len(prompt) - 1 + i, token]) for i, token in enumerate(draft.tokens)]
            assert draft.logprobs == pytest.approx(expected, abs=1e-4)
            return
    raise AssertionError("no text ended by itself")


class Broken(Rule):
    def step(self, memory, text, logprob):
        raise RuntimeError("no")


def test_a_monitor_that_raises_fails_its_own_request_only(engine, finish):
    engine.submit("bad", sample(monitor=Broken()))
    engine.submit("good", sample())
    done = finish(engine)
    assert done["bad"].reply is None and isinstance(done["bad"].error, RuntimeError) and done["good"].reply is not None


def test_hidden_states_are_those_after_each_token_of_the_draft(engine, finish):
    config, weights, _ = tiny_llama()
    model = Llama(config)
    model.load_state_dict(weights)
    finishes = set()
    for seed in range(12):
        engine.submit(seed, sample(seed=seed, max_tokens=14, hidden=True, stop=("a",)))
    for done in finish(engine).values():
        if done.reply.tokens:
            prompt = engine.vocabulary.encode(PROMPT.piece)
            with torch.no_grad():
                expected = model.hidden(torch.tensor([[*prompt, *done.reply.tokens]]))[0, len(prompt) :]
            assert done.hidden.shape == expected.shape and (done.hidden - expected).abs().max() < 1e-4
            finishes.add(done.reply.finish)
    assert len(finishes) >= 2


def test_hidden_does_not_change_the_text(engine, finish):
    asked = run(engine, finish, *(sample(seed=seed, hidden=True) for seed in range(8)))
    assert [draft.tokens for draft in asked] == [
        draft.tokens for draft in run(engine, finish, *(sample(seed=seed) for seed in range(8)))]  # fmt: skip


def test_cancelled_requests_end_at_the_next_step_wherever_they_are(finish):
    engine = Engine(*tiny_llama(), rows=2)
    for number in range(5):
        engine.submit(number, sample(seed=number, max_tokens=50))
    assert engine.step() == []
    for number in (0, 3):
        engine.cancel(number)
        engine.cancel(number)
    engine.cancel("nobody")
    cancelled = {done.key: done for done in engine.step() if done.reply is None}
    assert {key: done.generated for key, done in cancelled.items()} == {0: 1, 3: 0}
    assert sorted(finish(engine)) == [1, 2, 4]


def test_max_tokens_none_means_what_the_context_holds(finish):
    engine = Engine(*tiny_llama(context=64), rows=2)
    engine.submit(0, sample(max_tokens=None, stop=(), temperature=0.0))
    draft = finish(engine)[0].reply
    length = len(engine.vocabulary.encode(PROMPT.piece))
    assert draft.finish == "end" or (draft.finish, len(draft.tokens)) == ("length", 64 - length)


def test_generate_returns_n_texts_of_each_prompt_whatever_else_runs(engine, finish):
    engine.submit("other", sample(max_tokens=3))
    texts = engine.generate(["the cat", "the dog"], n=3, max_tokens=5, seed=2)
    assert [len(row) for row in texts] == [3, 3] and len(set(texts[0])) > 1
    assert texts == Engine(*tiny_llama(), rows=3).generate(["the cat", "the dog"], n=3, max_tokens=5, seed=2)
    assert engine.generate([]) == []
    assert [done.key for done in engine.step()] == ["other"]


@pytest.mark.parametrize(("request_", "message"), [
    (sample(Prefix("")), "empty"), (sample(Prefix("cat " * 200)), "room for 128"),
    (sample(temperature=-1.0), "0 or more"),
    (sample(top_p=0.0), "top_p"), (sample(min_p=2.0), "min_p"), (sample(stop=("",)), "stop"),
    (sample(temperature=math.nan), "temperature"), (sample(max_tokens=0), "max_tokens"),
    (Score(PROMPT, "m", of="logprob", step="\n"), "step"),
])  # fmt: skip
def test_bad_requests_are_refused_with_the_reason(engine, request_, message):
    with pytest.raises(InvalidInput, match=message):
        engine.submit(0, request_)
    assert len(engine) == 0


def test_models_do_only_what_they_were_made_for(engine, judge):
    for model, request in ((engine, Score(PROMPT, "m")), (judge, sample()), (judge, Score(PROMPT, "m", of="logprob"))):
        with pytest.raises(Unsupported):
            model.submit(0, request)


def test_a_key_is_used_once_at_a_time(engine):
    engine.submit(0, sample())
    with pytest.raises(InvalidInput, match="own"):
        engine.submit(0, sample())


def test_weights_that_are_not_numbers_are_refused():
    config, weights, tokenizer = tiny_llama()
    weights["model.norm.weight"][3] = math.nan
    with pytest.raises(CheckpointError, match="norm"):
        Engine(config, weights, tokenizer)
