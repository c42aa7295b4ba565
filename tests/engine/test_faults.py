"""Bad input, and what goes wrong in the middle of a step: one request fails with the reason, the others go on."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from outthink.core.errors import InvalidInput
from outthink.core.monitor import GO, Force
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine import decoder
from outthink.engine.engine import Engine
from outthink.engine.jobs import Finished
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")


def make(*, context=128, reward=False, **options):
    config, weights, tokenizer = tiny_llama(context=context, reward=reward)
    return Engine(replace(config, eos_token_ids=()), weights, tokenizer, **{"rows": 16} | options)


def sample(prefix=PROMPT, seed=0, **knobs):
    return Sample(prefix, "m", seed, **{"max_tokens": 10} | knobs)


def serve(engine, requests, steps=300, **options):
    for key, request in requests.items():
        engine.submit(key, request, **options)
    done = {}
    for _ in range(steps):
        done |= {event.key: event for event in engine.step() if isinstance(event, Finished)}
        if not len(engine):
            return done
    raise AssertionError("the engine does not finish")


@dataclass(frozen=True)
class Writes:
    """Puts `text` behind so many tokens."""

    text: str
    after: int

    def start(self):
        return 0

    def step(self, memory, text, logprob):
        return memory + 1, Force(self.text) if memory + 1 == self.after else GO


def clean(engine):
    """Nothing is left of what has failed."""
    engine.forest.clear()
    return not engine._rows.jobs and engine.usage().logical_bytes == 0 and not engine.usage().pages


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_prompts_longer_than_the_context_are_refused():
    engine = make()
    with pytest.raises(InvalidInput, match=r"400 tokens.*room for 128; shorten"):
        engine.submit(0, sample(Prefix("q" * 400)))
    with pytest.raises(InvalidInput, match="400 tokens to score, but the context is 128"):
        engine.submit(0, Score(Prefix("q" * 400), "m", of="logprob"))
    assert len(engine) == 0 and engine.step() == []


def test_a_prompt_that_memory_has_no_room_for_is_refused_with_what_would_help():
    engine = make(kv_bytes=1)
    with pytest.raises(InvalidInput, match=r"room for 48.*kv_bytes"):
        engine.submit(0, sample(Prefix("q" * 60)))


@pytest.mark.parametrize(("options", "message"), [
    ({"policy": "prority"}, "priority"), ({"dtype": "bfloat61"}, "bfloat16"), ({"rows": 0}, "rows=0"),
    ({"step_tokens": 0}, "step_tokens=0"), ({"context": 0}, "0"), ({"context": -3}, "-3"),
])  # fmt: skip
def test_bad_options_are_refused(options, message):
    config, weights, tokenizer = tiny_llama()
    with pytest.raises(InvalidInput, match=message):
        Engine(config, weights, tokenizer, **options)


# --- numbers that are none --------------------------------------------------------------------------------------------


def spoil(engine, layer, text):
    """Make `layer` say what is no number after the token `text`, as overflow would."""
    (token,) = engine.vocabulary.encode(text)
    run, marked = engine.runner._through, torch.full((1,), math.nan)

    def through(batch, pages, fine):
        hidden = run(batch, pages, fine)
        bad = batch.tokens == token
        if fine is not None and bool(bad.any()):
            fine[layer:] = [False] * (len(fine) - layer)
        hidden[: len(bad)][bad] = marked
        return hidden

    engine.runner._through = through


def broken_weights(engine, layer):
    """Damage a weight that is in use: an input layer's gain."""
    engine.runner._layers[layer].mlp_norm[0] = math.nan


@pytest.mark.parametrize("layer", [0, 1])
def test_weights_that_have_become_no_numbers_name_their_layer(layer):
    engine = make()
    broken_weights(engine, layer)
    done = serve(engine, {"draw": sample(), "score": Score(PROMPT, "m", of="logprob")})
    for event in done.values():
        assert event.reply is None and f"layer {layer} (of 2" in str(event.error), event.error
    assert done["draw"].generated == 0 and clean(engine)


def test_a_head_that_has_become_no_numbers_is_named():
    engine = make()
    engine.runner._norm[0] = math.nan
    done = serve(engine, {"draw": sample(), "score": Score(PROMPT, "m", of="logprob")})
    assert all("the head" in str(event.error) for event in done.values())


def test_rewards_that_are_no_numbers_name_their_layer():
    engine = make(reward=True)
    broken_weights(engine, 1)
    done = serve(engine, {"a": Score(PROMPT, "m"), "b": Score(PROMPT.extend("dog\n"), "m", step="\n")})
    assert all(event.reply is None and "layer 1" in str(event.error) for event in done.values())


@pytest.mark.parametrize("hidden", [False, True])
def test_only_those_without_numbers_fail(hidden):
    """Others in the very same batches draw what they draw alone, and what broke in mid-text has its tokens charged."""
    good = {f"good {seed}": sample(PROMPT.extend("cat " * seed), seed, hidden=hidden) for seed in range(4)}
    alone = serve(make(), good)
    engine = make()
    unused = next(letter for letter in "qzjkvxw" if not any(letter in event.reply.text for event in alone.values()))
    spoil(engine, 1, unused)
    bad = {"read": sample(Prefix(f"the {unused}")), "scored": Score(Prefix(f"dog {unused} ate"), "m", of="logprob")}
    done = serve(engine, good | bad | {"written": sample(monitor=Writes(unused, after=3))})
    assert all(done[key].reply == alone[key].reply for key in good)
    for key in ("read", "scored", "written"):
        assert done[key].reply is None and "layer 1" in str(done[key].error), key
    assert done["written"].generated == 4
    assert clean(engine)


def test_generate_says_what_went_wrong_and_leaves_nothing():
    engine = make()
    broken_weights(engine, 0)
    engine.submit("other", Score(PROMPT, "m", of="logprob"))
    with pytest.raises(FloatingPointError, match="layer 0"):
        engine.generate(["the cat", "the dog"], n=3)
    assert [event.key for event in engine.step()] == ["other"] and not len(engine)
    with pytest.raises(InvalidInput, match="room for"):
        engine.generate(["the cat", "q" * 300], n=2)
    assert not len(engine) and engine.step() == []


# --- memory that runs out ---------------------------------------------------------------------------------------------


def starve(engine, most, error=MemoryError):
    """Let batches of more than `most` tokens fail, after they have written some of what they compute."""
    run, sizes = engine.runner.run, []

    def starved(batch, pages, **more):
        sizes.append(len(batch.tokens))
        if len(batch.tokens) > most:
            raise error("not enough memory: you tried to allocate 9 bytes")
        return run(batch, pages, **more)

    engine.runner.run = starved
    return sizes


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("most", [7, 1])
def test_a_step_without_memory_is_done_in_parts_and_all_survive(most, error):
    requests = {n: sample(PROMPT.extend("cat " * (n % 5)), n, hidden=n % 3 == 0, logprobs=True) for n in range(12)}
    requests |= {"score": Score(PROMPT.extend("the dog ate the rat"), "m", of="logprob")}
    plenty = serve(make(deterministic=True), requests)
    engine = make(deterministic=True)
    sizes = starve(engine, most, error)
    done = serve(engine, requests)
    assert {key: event.reply for key, event in done.items()} == {key: event.reply for key, event in plenty.items()}
    assert max(sizes) > most


def test_one_that_is_too_large_even_alone_fails_and_the_others_go_on():
    """Two rows and a prompt that cannot be computed, whatever is computed beside them."""
    engine = make()
    run = engine.runner.run
    token = engine.vocabulary.encode("q")[0]

    def starved(batch, pages, **more):
        if bool((batch.tokens == token).any()):
            raise MemoryError("no")
        return run(batch, pages, **more)

    good = {n: sample(PROMPT, n) for n in range(5)}
    alone = serve(make(), good)
    engine.runner.run = starved

    rows = {name: sample(seed=seed, monitor=Writes("q", after=2)) for seed, name in enumerate(("row", "other"))}
    bad = rows | {"read": sample(Prefix("the q")), "scored": Score(Prefix("qq"), "m", of="logprob")}
    done = serve(engine, good | bad)
    assert all(done[key].reply.tokens == alone[key].reply.tokens for key in good)
    for key in bad:
        assert done[key].reply is None and "kv_bytes" in str(done[key].error), key
    assert done["row"].generated == 3 and clean(engine)


@pytest.mark.parametrize("most", [3, 1])
@pytest.mark.parametrize("where", ["logits", "draw"])
def test_draws_without_memory_are_made_in_parts(most, where, monkeypatch):
    """Forced tokens, hidden states and likeliest tokens are neither lost nor told twice on the way."""
    writes = Writes(" the cat", after=3)
    requests = {n: sample(seed=n, hidden=n % 2 == 0, monitor=writes if n % 3 == 0 else None) for n in range(8)}
    plenty = serve(make(deterministic=True), requests, top=2)
    engine = make(deterministic=True)
    owner, name = (engine.runner, "logits") if where == "logits" else (decoder, "draw")
    real = getattr(owner, name)

    def starved(rows, *others, **more):
        if len(rows) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(rows, *others, **more)

    monkeypatch.setattr(owner, name, starved)
    done = serve(engine, requests, top=2)
    for key, event in plenty.items():
        assert done[key].reply == event.reply and repr(done[key].top) == repr(event.top)
        assert (done[key].hidden is None) == (event.hidden is None)
        assert event.hidden is None or event.hidden.equal(done[key].hidden)


def test_logits_too_large_for_one_row_fail_it():
    engine = make()

    def starved(hidden):
        raise MemoryError("no")

    engine.runner.logits = starved
    done = serve(engine, {0: sample(), 1: sample(seed=1)})
    assert all(event.reply is None and "memory ran out" in str(event.error) for event in done.values())
    assert clean(engine)


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory():
    engine = make()

    def broken(batch, pages, **more):
        raise RuntimeError("a bug")

    engine.runner.run = broken
    engine.submit(0, sample())
    with pytest.raises(RuntimeError, match="a bug"):
        engine.step()


# --- rules of others --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raises:
    """Raises at its start, at a token, or at the end of the text."""

    when: int

    def start(self):
        if self.when == 0:
            raise ValueError("my own mistake")
        return 0

    def step(self, memory, text, logprob):
        if memory + 1 == self.when:
            raise ValueError("my own mistake")
        return memory + 1, GO


@pytest.mark.parametrize("when", [0, 1, 4, 10])
def test_a_monitor_that_raises_fails_its_request_whenever_it_does(when):
    engine = make()
    alone = serve(make(), {"good": sample(seed=3)})["good"]
    done = serve(engine, {"bad": sample(monitor=Raises(when), hidden=True), "good": sample(seed=3)})
    assert done["bad"].reply is None and "my own mistake" in str(done["bad"].error)
    assert done["bad"].generated == when and done["good"].reply == alone.reply and clean(engine)


# --- machines ---------------------------------------------------------------------------------------------------------

_WORKS = """
import warnings
from outthink.engine.native import kernels
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from outthink.engine.engine import Engine
    from outthink.testing.tiny_llama import tiny_llama
    texts = [Engine(*tiny_llama(seed=seed)).generate(["the cat"], n=3, max_tokens=9) for seed in (0, 0)]
    assert kernels() is None and texts[0] == texts[1]
print(len([one for one in said if "C compiler" in str(one.message)]), repr(texts[0]))
"""


def elsewhere(tmp_path, **environment):
    done = subprocess.run(
        [sys.executable, "-c", _WORKS], env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | environment,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, texts = done.stdout.split(" ", 1)
    return int(count), texts.strip()


@pytest.mark.parametrize("how", ["no compiler", "turned off"])
def test_without_c_kernels_it_works_in_torch(how, tmp_path):
    """Says so once if that was not asked for; the texts are those of the kernels."""
    count, texts = elsewhere(
        tmp_path, **({"CC": "/nonexistent/cc"} if how == "no compiler" else {"OUTTHINK_NATIVE": "0"})
    )
    assert count == (how == "no compiler")
    assert texts == repr(Engine(*tiny_llama()).generate(["the cat"], n=3, max_tokens=9))


def test_a_library_that_cannot_be_loaded_is_done_without(tmp_path, monkeypatch):
    from outthink.engine import native

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_compile", lambda compiler, path: (path.parent.mkdir(), path.write_text("no"))[0])
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert native.kernels.__wrapped__() is None


@pytest.mark.parametrize("shape", [{}, {"heads": 3, "kv_heads": 3, "head": 8}, {"kv_heads": 1}])
def test_torch_and_the_kernels_draw_the_same(shape, monkeypatch):
    """Everything that the engine does, in torch: shared levels, chunks, hidden states, scores, monitors, pauses."""
    requests = {n: sample(PROMPT.extend("cat " * (n % 3)), n, max_tokens=30, top_p=0.9 if n % 4 == 0 else 1.0,
                          hidden=n % 5 == 0, logprobs=True, min_p=0.05) for n in range(20)}  # fmt: skip
    requests |= {"score": Score(PROMPT.extend("the dog ate the rat"), "m", of="logprob")}
    fast = serve(Engine(*tiny_llama(**shape), rows=20, step_tokens=50), requests)
    import outthink.engine.runner as runner
    import outthink.engine.sampler as sampler

    monkeypatch.setattr(runner, "kernels", lambda: None)
    monkeypatch.setattr(sampler, "kernels", lambda: None)
    engine = Engine(*tiny_llama(**shape), rows=20, step_tokens=50)
    assert not engine.runner.native
    plain = serve(engine, requests)
    for key, event in fast.items():
        other = plain[key].reply
        if key == "score":
            assert event.reply.value == pytest.approx(other.value, abs=1e-3)
        else:
            assert event.reply.tokens == other.tokens
            assert event.reply.logprobs == pytest.approx(other.logprobs, abs=1e-4)
