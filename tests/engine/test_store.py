"""Memory: bounded, shared, given back; and a fuzz of everything that may be asked of an engine."""

import gc
import random

import pytest

from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.cache import token_bytes
from outthink.engine.engine import Engine
from outthink.testing.tiny_llama import tiny_llama


def test_the_store_keeps_to_its_limit_and_forgets_the_oldest(finish):
    engine = Engine(*tiny_llama(), rows=2, kv_bytes=600_000)
    limit = engine.store.limit
    drafts = []
    for seed in range(60):
        engine.submit(0, Sample(Prefix(f"the cat {seed} sat on the mat"), "m", seed, max_tokens=20))
        drafts.append(finish(engine)[0].reply)
        engine.step()
        assert engine.store.used <= limit
    assert engine.store.used > limit // 2
    engine.submit("old", Sample(drafts[0].prefix, "m", 1, max_tokens=2))
    engine.submit("new", Sample(drafts[-1].prefix, "m", 1, max_tokens=2))
    done = finish(engine)
    assert done["new"].computed == 0 and done["old"].computed == done["old"].prompt


def test_prefixes_that_nobody_can_name_are_let_go_of(engine, finish):
    engine.submit(0, Sample(Prefix("the cat"), "m", 0, max_tokens=9))
    reply = finish(engine)[0].reply
    engine.step()
    assert len(engine.store) == 2
    again = Prefix("the cat")
    engine.submit(1, Sample(again, "m", 1, max_tokens=1))
    finish(engine)
    del reply
    gc.collect()
    engine.step()
    assert len(engine.store) == 1, "the root is still named by an equal prefix"
    del again
    gc.collect()
    engine.step()
    assert (len(engine.store), engine.store.used) == (0, 0)


def test_rows_are_as_many_as_fit_in_memory():
    config = tiny_llama()[0]
    row = 128 * token_bytes(config, __import__("torch").float32)
    assert [Engine(*tiny_llama(), kv_bytes=kv).rows for kv in (1, 8 * row, 10**9)] == [1, 4, 256]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_submit_cancel_and_step_leaks_nothing(seed):
    """Every key is reported once, memory returns to nothing, and the engine still works afterwards."""
    rng = random.Random(seed)
    engine = Engine(*tiny_llama(), rows=rng.choice([1, 3, 16]), kv_bytes=rng.choice([10**5, 10**6, 10**9]))
    known, open_, reported, count = [Prefix("the cat sat"), Prefix("on the\nmat" * 8)], set(), set(), 0
    for _ in range(250):
        move = rng.random()
        if move < 0.45:
            prefix = rng.choice(known)
            if engine.links.of(prefix).end > 90:
                continue
            if rng.random() < 0.2:
                request = Score(prefix, "m", of="logprob")
            else:
                request = Sample(
                    prefix,
                    "m",
                    rng.randrange(99),
                    max_tokens=rng.randrange(1, 30),
                    stop=rng.choice([(), ("\n",)]),
                    hidden=rng.random() < 0.1,
                )
            engine.submit(count, request)
            open_.add(count)
            count += 1
        elif move < 0.6:
            engine.cancel(rng.randrange(count + 1))
        else:
            for done in engine.step():
                assert done.key in open_ and done.key not in reported
                reported.add(done.key)
                open_.remove(done.key)
                if rng.random() < 0.3 and hasattr(done.reply, "prefix"):
                    known.append(rng.choice([done.reply.prefix, done.reply.prefix.extend(" dog")]))
            assert len(engine) == len(open_)
    while len(engine):
        for done in engine.step():
            open_.remove(done.key)
    assert not open_
    known.clear()
    del prefix, request, done
    gc.collect()
    engine.step()
    assert (len(engine.store), engine.store.used, len(engine.links._known), engine._decoder.jobs) == (0, 0, 0, [])
    assert engine.generate(["the cat"], max_tokens=3, seed=1) == Engine(*tiny_llama()).generate(
        ["the cat"], max_tokens=3, seed=1)  # fmt: skip
