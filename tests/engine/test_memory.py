"""Memory: bounded, shared, given back; and a fuzz of everything that may be asked of an engine."""

import gc
import random

import pytest

from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.engine import Engine
from outthink.testing.tiny_llama import tiny_llama


def test_what_is_named_stays_until_the_memory_is_needed(finish):
    """Sixty texts of two pages each and more, all alive, in room for some thirty: the oldest go first."""
    engine = Engine(*tiny_llama(), rows=2, kv_bytes=300_000)
    most = engine.forest.pages.count
    drafts = []
    for seed in range(60):
        engine.submit(0, Sample(Prefix(f"the cat {seed} sat on the mat"), "m", seed, max_tokens=20))
        drafts.append(finish(engine)[0].reply)
        assert engine.usage().pages <= most
    assert engine.usage().pages > most // 2
    engine.submit("old", Sample(drafts[0].prefix, "m", 1, max_tokens=2))
    engine.submit("new", Sample(drafts[-1].prefix, "m", 1, max_tokens=2))
    done = finish(engine)
    assert done["new"].computed == 0 and done["old"].computed > done["old"].prompt // 2


def test_prefixes_that_nobody_can_name_are_let_go_of(engine, finish):
    engine.submit(0, Sample(Prefix("the cat"), "m", 0, max_tokens=9))
    reply = finish(engine)[0].reply
    engine.step()
    before = engine.usage().pages
    again = Prefix("the cat")
    engine.submit(1, Sample(again, "m", 1, max_tokens=1))
    finish(engine)
    assert before >= 2 and len(engine.names) >= 2
    del reply
    gc.collect()
    engine.step()
    engine.forest.clear()
    assert (len(engine.names), engine.usage().nodes) == (1, 1), "the root is still named by an equal prefix"
    del again
    gc.collect()
    engine.step()
    engine.forest.clear()
    assert (len(engine.names), engine.usage().pages, engine.usage().nodes) == (0, 0, 0)


def test_a_text_that_memory_has_no_room_for_is_refused_at_once():
    engine = Engine(*tiny_llama(), kv_bytes=1)
    assert engine.context < 128
    with pytest.raises(InvalidInput, match=f"room for {engine.context}"):
        engine.submit(0, Sample(Prefix("the cat sat on the mat " * 9), "m", 0, max_tokens=2))


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
    engine.forest.clear()
    assert (len(engine.names), engine.usage().pages, engine.usage().nodes, len(engine.links)) == (0, 0, 0, 0)
    assert engine.generate(["the cat"], max_tokens=3, seed=1) == Engine(*tiny_llama()).generate(
        ["the cat"], max_tokens=3, seed=1)  # fmt: skip
