"""Steps: how much is computed in them, in which order, who gives way, who waits, and what is told on the way."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from outthink.core.errors import InvalidInput
from outthink.core.monitor import GO, Force
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.engine import Engine
from outthink.engine.jobs import Finished, Piece, Waits
from outthink.engine.pages import PAGE
from outthink.engine.policies import POLICIES
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")
LONG = Prefix("the dog ate the rat, and then the cat ran.\n" * 4)


def make(*, endless=False, context=256, **options):
    """An engine whose texts end now and then, or (`endless`) where they are cut."""
    config, weights, tokenizer = tiny_llama(context=context)
    return Engine(replace(config, eos_token_ids=()) if endless else config, weights, tokenizer, **{"rows": 8} | options)


def room(pages):
    """Bytes for so many pages of the tiny model."""
    return pages * make().forest.pages.page_bytes


def sample(prefix=PROMPT, seed=0, **knobs):
    return Sample(prefix, "m", seed, **{"max_tokens": 12} | knobs)


def serve(engine, requests, **options):
    """Submit all at once; return their replies."""
    for number, request in enumerate(requests):
        engine.submit(number, request, **options)
    replies = {}
    for _ in range(20_000):
        if not len(engine):
            return [replies[number] for number in range(len(requests))]
        replies |= {event.key: event.reply for event in engine.step() if isinstance(event, Finished)}
    raise AssertionError("the engine does not finish")


def tokens_of(engine):
    """The number of tokens of every batch that goes through the model from now on."""
    sizes, run = [], engine.runner.run

    def counted(batch, pages, **more):
        sizes.append(len(batch.tokens))
        return run(batch, pages, **more)

    engine.runner.run = counted
    return sizes


# --- how much, and in which order -----------------------------------------------------------------------------------


def test_rows_come_first_and_prompts_fill_the_rest_of_the_step():
    engine = make(endless=True, step_tokens=40)
    for seed in range(6):
        engine.submit(seed, sample(seed=seed, max_tokens=100))
    for _ in range(4):
        engine.step()
    long = Prefix("12 " + 2 * LONG.piece)  # nothing in common with the others
    engine.submit("long", sample(long))
    sizes = tokens_of(engine)
    length = engine.links.of(long).end
    assert length > 120
    while length > 0:
        rows = len(engine._rows.going())
        engine.step()
        assert sizes[-1] == rows + min(length, 40 - rows), "a token for every row, and prompt up to the step's size"
        length -= 40 - rows


def test_a_step_is_never_larger_than_asked_for_except_by_a_page():
    engine = make(step_tokens=20, rows=16)
    sizes = tokens_of(engine)
    rng = random.Random(3)
    serve(engine, [sample(LONG.extend("cat " * rng.randrange(9)), seed, max_tokens=30) for seed in range(40)])
    assert max(sizes) <= 16 + PAGE and sum(sizes) == engine._scheduler.computed


@pytest.mark.parametrize("step_tokens", [1, 17, 64])
def test_a_prompt_in_chunks_gives_the_same_text(step_tokens):
    request = sample(LONG, temperature=0.0, max_tokens=20, logprobs=True)
    whole = serve(make(deterministic=True, step_tokens=1024), [request])
    assert serve(make(deterministic=True, step_tokens=step_tokens), [request]) == whole


ORDERS = {
    "fcfs": ["low", "high", "known", "long"],
    "priority": ["high", "known", "low", "long"],
    "longest_prefix": ["known", "low", "high", "long"],
    "depth_first": ["long", "known", "high", "low"],
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_say_who_is_served_first(policy):
    """One row: a short text, one that the search thinks much of, one whose prefix is there already, a long one."""
    engine = make(endless=True, rows=1, policy=policy)
    known = PROMPT.extend("the rat ran and the dog ran ")
    texts = {"low": Prefix("then the cat sat"), "high": Prefix("the dog ate the rat"), "known": known, "long": LONG}
    lengths = [engine.links.of(texts[name]).end for name in ("low", "high", "known", "long")]
    assert lengths == sorted(set(lengths))
    serve(engine, [sample(known, max_tokens=1)])
    engine.submit("first", sample(max_tokens=3, seed=9))
    engine.step()
    for name, text in texts.items():
        engine.submit(name, sample(text, max_tokens=2), priority={"high": 2.0, "known": 1.0}.get(name, 0.0))
    order = []
    while len(engine):
        order += [event.key for event in engine.step()]
    assert order == ["first", *ORDERS[policy]]


def test_equal_tokens_in_unlike_pieces_are_computed_once():
    """Thirty requests in one step, one text cut into pieces in thirty ways."""
    engine = make(rows=32)
    tokens = engine.vocabulary.encode(LONG.piece, root=True)
    sizes = tokens_of(engine)

    def cut(places):
        prefix, edges = None, [0, *places, len(tokens)]
        for a, b in pairwise(edges):
            piece = {"tokens": tokens[a:b], "vocabulary": engine.vocabulary.digest}
            text = engine.vocabulary.text(tokens[a:b])
            prefix = Prefix(text, **piece) if prefix is None else prefix.extend(text, **piece)
        return prefix

    rng = random.Random(1)
    requests = [sample(cut(sorted(rng.sample(range(1, len(tokens)), i % 4))), i, max_tokens=2) for i in range(30)]
    done = {}
    for number, request in enumerate(requests):
        engine.submit(number, request)
    while len(engine):
        done |= {event.key: event for event in engine.step()}
    assert sum(event.computed for event in done.values()) == len(tokens)
    assert sizes[0] == len(tokens)


# --- who gives way --------------------------------------------------------------------------------------------------


def crowd(count):
    return [
        sample(PROMPT.extend("cat dog " * (i % 3)), i, max_tokens=90, temperature=2.0, logprobs=True, hidden=i % 4 == 0)
        for i in range(count)
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_everybody_finishes_in_little_memory_with_the_same_text(policy):
    """Twelve rows of up to a hundred tokens in 14 pages: most are sent back, some many times."""
    requests = crowd(12)
    plenty = serve(make(deterministic=True, rows=12, context=144), requests)
    engine = make(deterministic=True, rows=12, context=144, kv_bytes=room(14), policy=policy)
    assert engine.context == 144
    sent_back, retire = [], engine._scheduler._retire
    engine._scheduler._retire = lambda job, *, keep: (sent_back.append(keep), retire(job, keep=keep))[1]
    assert serve(engine, requests) == plenty
    assert sent_back.count(False) > 5
    assert engine.usage().peak <= 14


def test_one_who_has_read_half_does_not_stand_in_the_way_of_a_more_important_one():
    """The first holds half of the memory, and is not even looked at while the second cannot go on."""
    engine = make(endless=True, rows=1, policy="priority", step_tokens=PAGE, kv_bytes=room(20))
    low, high = (sample(Prefix(letter * 200), max_tokens=3) for letter in "qz")
    assert all(engine.links.of(request.prefix).end == 200 for request in (low, high)) and engine.context == 240
    engine.submit("low", low)
    for _ in range(9):
        engine.step()
    engine.submit("high", high, priority=1.0)
    order = []
    for _ in range(100):
        order += [event.key for event in engine.step()]
    assert order == ["high", "low"]


def test_scores_that_need_all_the_memory_take_turns():
    engine = make(rows=2, step_tokens=32, kv_bytes=room(20))
    texts = [Prefix(f"{name} " * 55) for name in ("the cat", "a dog", "rat on")]
    expected = [serve(make(), [Score(text, "m", of="logprob")])[0].value for text in texts]
    found = serve(engine, [Score(text, "m", of="logprob") for text in texts])
    assert [score.value for score in found] == pytest.approx(expected, abs=1e-3)


def test_aborts_give_their_pages_back_in_the_same_step():
    engine = make(endless=True)
    for seed in range(6):
        engine.submit(seed, sample(seed=seed, max_tokens=100))
    for _ in range(40):
        engine.step()
    before, rows = engine.usage().pages, {row: engine._rows.branches[row] for row in engine._rows.jobs}
    going = {engine._rows.jobs[row].key: len(branch.pages) - branch.shared for row, branch in rows.items()}
    assert len(going) >= 3
    for key in list(going)[:2]:
        engine.cancel(key)
    full = sum(engine._rows.length[row] >= engine._rows.room[row] for row in rows)
    engine.step()
    given = sum(list(going.values())[:2])
    assert given >= 4 and engine.usage().pages <= before - given + full


def test_a_cancelled_request_has_drawn_what_it_is_charged_for():
    """Also when it is over and only its last hidden state is missing."""
    for steps in range(1, 9):
        engine = make(endless=True)
        engine.submit(0, sample(seed=2, max_tokens=5, hidden=True))
        events = [event for _ in range(steps) for event in engine.step()]
        if events:
            break
        engine.cancel(0)
        (done,) = engine.step()
        assert (done.reply, done.generated) == (None, min(steps, 5))
    assert events[0].generated == 5 and events[0].hidden.shape[0] == 5


# --- who waits ------------------------------------------------------------------------------------------------------


def paid(engine, key, request, slices, **options):
    """Serve one request in slices; return (reply, how often it waited)."""
    allowed, waits = [next(slices)], 0
    engine.submit(key, request, allowed=lambda: allowed[0], **options)
    while True:
        for event in engine.step():
            if isinstance(event, Waits):
                assert event.key == key and engine.paused == 1
                waits += 1
                allowed[0] += next(slices)
                engine.resume(key)
            elif isinstance(event, Finished):
                return event, waits


@pytest.mark.parametrize("seed", range(6))
def test_slices_change_neither_text_nor_hidden_states_nor_cost(seed):
    request = sample(PROMPT, seed, max_tokens=30, temperature=1.5, logprobs=True, hidden=seed % 2 == 0)
    engine = make(deterministic=True)
    rng = random.Random(seed)
    sliced, waits = paid(engine, "sliced", request, iter(lambda: rng.randrange(1, 5), None))
    other = make(deterministic=True)
    other.submit("whole", request)
    whole = next(event for _ in range(100) for event in other.step())
    assert (sliced.reply, sliced.generated) == (whole.reply, whole.generated)
    assert waits >= (whole.generated - 1) // 4
    assert request.hidden == (sliced.hidden is not None)
    if request.hidden:
        assert sliced.hidden.equal(whole.hidden)


def test_who_may_draw_nothing_waits_at_once():
    engine = make(endless=True)
    allowed = [0]
    engine.submit(0, sample(), allowed=lambda: allowed[0])
    assert engine.step() == [Waits(0)]
    engine.resume(0)
    assert engine.step() == [Waits(0)] and engine._jobs[0].generated == 0
    allowed[0] = 1
    engine.resume(0)
    assert engine.step() == [Waits(0)] and engine._jobs[0].generated == 1
    engine.resume(0, most=1)
    (done,) = engine.step()
    assert (done.reply.finish, len(done.reply.tokens), done.generated) == ("length", 1, 1)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_request_that_waits_ends_where_it_is_if_it_gets_no_more(hidden):
    engine = make(endless=True, deterministic=True)
    request = sample(seed=4, max_tokens=50, hidden=hidden, logprobs=True)
    engine.submit(0, request, allowed=lambda: 7)
    events = [event for _ in range(7) for event in engine.step()]
    assert events == [Waits(0)]
    engine.resume(0, most=7)
    done = [event for _ in range(3) for event in engine.step()]
    (short,) = serve(make(endless=True, deterministic=True), [sample(seed=4, max_tokens=7, logprobs=True)])
    assert len(done) == 1 and done[0].reply == short and done[0].generated == 7
    assert len(engine) == engine.paused == 0
    if hidden:
        assert done[0].hidden.shape == (7, engine.config.hidden_size)


def test_a_request_that_waits_can_be_cancelled():
    engine = make(endless=True)
    engine.submit(0, sample(max_tokens=50), allowed=lambda: 3)
    while engine.step() != [Waits(0)]:
        pass
    engine.cancel(0)
    (done,) = engine.step()
    assert (done.reply, done.generated, engine.paused, len(engine)) == (None, 3, 0, 0)
    engine.submit(0, sample(max_tokens=2))
    assert next(event for _ in range(9) for event in engine.step()).reply is not None


@pytest.mark.parametrize("key", ["nobody", "working"])
def test_only_what_waits_is_resumed(key):
    engine = make()
    engine.submit("working", sample())
    engine.step()
    with pytest.raises(InvalidInput, match="does not wait"):
        engine.resume(key)


def test_what_waits_gives_its_memory_to_those_that_work_and_goes_on_all_the_same():
    """Ten wait with two pages each, then one needs nearly everything; then the ten go on."""
    requests = [sample(Prefix(f"{i} cats and dogs ran"), i, max_tokens=40, temperature=2.0) for i in range(10)]
    plenty = serve(make(deterministic=True, rows=10), requests)
    engine = make(deterministic=True, rows=10, kv_bytes=room(30))
    allowed = [18]
    for number, request in enumerate(requests):
        engine.submit(number, request, allowed=lambda: allowed[0])
    replies = {}

    def step():
        for event in engine.step():
            if isinstance(event, Finished):
                replies[event.key] = event.reply

    while len(engine) > engine.paused:
        step()
    assert engine.paused >= 5
    held = engine.usage().pages
    engine.submit("big", sample(Prefix("cat dog " * 40), max_tokens=100, temperature=2.0, seed=3))
    while "big" not in replies:
        step()
    assert engine.usage().peak <= 30 < held + engine.context // PAGE
    allowed[0] = 10**6
    for key in list(engine._scheduler.paused):
        engine.resume(key)
    while len(engine):
        step()
    assert [replies[number] for number in range(10)] == plenty


class Insists:
    """Writes on wherever the text would end."""

    def start(self):
        return 0

    def step(self, memory, text, logprob):
        return (memory + 1, Force(" the cat")) if text == "" else (memory, GO)


def test_a_text_whose_first_token_is_replaced_can_wait_there():
    """The end of the text was drawn and paid for, and nothing written: the row stands where it began."""
    config, weights, tokenizer = tiny_llama()
    weights["lm_head.weight"][0] *= -4  # the model ends this prompt now and then at once
    texts = []
    for slices in (iter(lambda: 1, None), iter(lambda: 100, None)):
        engine = Engine(config, weights, tokenizer, deterministic=True)
        for seed in range(12):
            done, _ = paid(engine, seed, sample(seed=seed, max_tokens=12, monitor=Insists()), slices)
            texts.append((done.reply.text, done.generated, done.reply.memory))
    assert texts[:12] == texts[12:]
    assert any(text.startswith(" the cat") for text, _, _ in texts)


# --- what is told ---------------------------------------------------------------------------------------------------


def test_pieces_add_up_to_the_text_of_each_draft():
    """In whole characters, with pauses and with too little memory, whoever begins to read late included."""
    engine = make(rows=6, kv_bytes=room(16), context=144)
    rng, reading, said, done = random.Random(2), set(), {}, {}
    allowed = {}
    for seed in range(12):
        allowed[seed] = 5 if seed % 3 == 0 else 10**6
        if seed % 2 == 0:
            reading.add(seed)
        engine.submit(
            seed, sample(Prefix("ünïcödé " * 2), seed, max_tokens=60, temperature=2.5),
            watched=lambda seed=seed: seed in reading, allowed=lambda seed=seed: allowed[seed],
        )  # fmt: skip
    for turn in range(5000):
        if turn == 12:
            reading |= set(range(12))
        for event in engine.step():
            if isinstance(event, Piece):
                assert event.text and not event.text.endswith("\ufffd")
                said[event.key] = said.get(event.key, "") + event.text
            elif isinstance(event, Waits):
                allowed[event.key] += rng.randrange(1, 20)
                engine.resume(event.key)
            else:
                done[event.key] = event
        if not len(engine):
            break
    assert len(done) == 12 and len(said) >= 6
    assert any("\ufffd" in event.reply.text or "ü" in event.reply.text for event in done.values())
    for key, event in done.items():
        assert said.get(key, "") + event.rest == event.reply.text


def test_pages_of_an_owner_are_those_that_its_requests_held_together():
    """Counted after every change by looking at all branches: pages of their paths, and of their own."""
    engine = make(rows=10, kv_bytes=room(40), context=144)
    rows, peaks = engine._rows, {}

    def look(_=None):
        held = {}
        for row, branch in rows.branches.items():
            pages = {node.page for node in branch.path} | set(branch.pages)
            held.setdefault(rows.jobs[row].owner, set()).update(pages)
        for owner, pages in held.items():
            peaks[owner] = max(peaks.get(owner, 0), len(pages))
        for owner in [owner for owner in peaks if owner not in held]:
            del peaks[owner]

    rows.left = look  # called before a row is freed: until then what is held only grows
    rng, told = random.Random(4), 0
    prefixes = [PROMPT, LONG, PROMPT.extend("the dog ran"), LONG.extend("and the rat")]
    for number in range(40):
        engine.submit(number, sample(rng.choice(prefixes), number, max_tokens=rng.randrange(1, 40)), owner=number % 3)
    leave = rows.leave

    def left(row):
        nonlocal told
        owner, before = rows.jobs[row].owner, rows.left(row)
        expected = peaks[owner]
        job, branch = leave(row)
        assert before is None and job.pages == expected
        told += 1
        look()
        return job, branch

    rows.leave = left
    while len(engine):
        engine.step()
        look()
    assert told >= 40


def test_those_who_were_sent_back_do_not_keep_the_memory_that_the_first_needs():
    """Three rows, sent back; their prompts are known still, and fill the memory that a more important one needs."""
    engine = make(endless=True, policy="priority", kv_bytes=room(20))
    for letter in "qzj":
        engine.submit(letter, sample(Prefix(letter * 64), max_tokens=60))
    for _ in range(12):
        engine.step()
    for job in list(engine._rows.jobs.values()):
        engine._scheduler._retire(job, keep=False)
        engine._scheduler._samples[job.key] = job
    engine.submit("high", sample(Prefix("k" * 220), max_tokens=3), priority=1.0)
    order = []
    for _ in range(300):
        order += [event.key for event in engine.step()]
    assert order[0] == "high" and len(order) == 4


def test_a_text_whose_pages_go_to_another_in_the_same_step_is_looked_up_again():
    """What the second has written is in memory, held and named by nobody; the first, before it, takes that memory."""
    engine = make(endless=True, context=1024, rows=2, kv_bytes=room(40))
    pinned = sample(Prefix("z" * 128), max_tokens=1)
    serve(engine, [pinned])
    engine.forest.pin(engine.names.node(engine.links.of(pinned.prefix)))
    engine.submit("second", sample(Prefix("q" * 32), max_tokens=100))
    for _ in range(30):
        engine.step()
    (job,) = engine._rows.jobs.values()
    engine._scheduler._retire(job, keep=True)
    engine.submit("first", sample(Prefix("k" * 480), max_tokens=3))
    engine._scheduler._samples[job.key] = job
    order = []
    for _ in range(200):
        order += [event.key for event in engine.step()]
    assert order == ["first", "second"]
