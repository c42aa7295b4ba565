"""Recorded samples: dealt once per run, charged as recorded, cut where the model would have been cut."""

import pytest

from outthink.core.errors import BackendError, Unsupported
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.verbs import fitting, gather
from outthink.models.pool import Pool, Recording
from outthink.models.toy import toy_backend, toy_problems

NAME = "toy/t1"
PROMPT = Prefix(toy_problems(1)[0].prompt)


def decode(tokens):
    return "".join(map(chr, tokens))


def asking(seed, *, most=200, temperature=0.8, **more):
    return Sample(PROMPT, NAME, seed, max_tokens=most, temperature=temperature, **more)


async def drafts(n, **options):
    return await gather([asking(i, **options) for i in range(n)])


@pytest.fixture(scope="module")
def live():
    """A run of eight samples and a greedy one on the model itself."""

    async def method():
        greedy = await asking(0, temperature=0)
        return [greedy, *await drafts(8)]

    return Runtime({NAME: toy_backend(NAME)}).run(method())


@pytest.fixture
def recording(live):
    out = Recording()
    assert out.take(live.trace.served()) == 9
    return out


def replay(recording, method, *, pool=None, **options):
    return Runtime({NAME: pool or Pool(recording, decode=decode)}).run(method, **options)


def test_a_whole_run_costs_what_it_cost_when_recorded(live, recording):
    async def method():
        greedy = await asking(77, temperature=0)
        return [greedy, *await drafts(8)]

    run = replay(recording, method())
    assert run.cost == live.cost
    assert run.state[0].text == live.state[0].text
    assert sorted(d.text for d in run.state[1:]) == sorted(d.text for d in live.state[1:])


def test_no_run_sees_a_sample_twice_and_every_run_sees_the_same_order(recording):
    pool = Pool(recording, decode=decode, seed=3)
    runtime = Runtime({NAME: pool})
    first, second = runtime.run(drafts(8)), runtime.run(drafts(4))
    assert len({d.tokens for d in first.state}) == len({d.tokens for d in replay(recording, drafts(8)).state})
    assert [d.text for d in second.state] == [d.text for d in first.state][:4]


def test_the_order_is_the_seeds(recording):
    def order(seed):
        return [d.text for d in replay(recording, drafts(8), pool=Pool(recording, seed=seed)).state]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(6)}) > 1


def test_asking_for_more_than_was_recorded_fails_and_says_how_much_there_was(recording):
    with pytest.raises(BackendError, match="the pool has 8 samples"):
        replay(recording, drafts(9))


def test_a_budget_holds_as_it_does_live(recording):
    async def method():
        return await fitting(asking(i, most=60, at_least=1) for i in range(8))

    budget = len(PROMPT.text) + 100
    run = replay(recording, method(), budget=f"{budget} tokens")
    assert 0 < run.cost.tokens <= budget
    assert run.cost.total("prompt") == len(PROMPT.text)


def test_a_shorter_request_is_cut_to_the_same_beginning(recording):
    whole = replay(recording, drafts(1)).state[0]
    cut = replay(recording, drafts(1, most=5)).state[0]
    assert (cut.finish, cut.tokens, cut.text) == ("length", whole.tokens[:5], whole.text[:5])
    with pytest.raises(BackendError, match="`decode`"):
        replay(recording, drafts(1, most=5), pool=Pool(recording))


def test_other_settings_prompts_and_requests_are_refused(recording):
    async def one(request):
        return await request

    for request, says in [
        (asking(0, top_p=0.5), "nothing was recorded"),
        (Sample(Prefix("else"), NAME, 0, max_tokens=9), "nothing was recorded"),
        (Score(PROMPT, NAME), "serves Sample"),
        (asking(0, hidden=True), "no hidden"),
    ]:
        with pytest.raises(Unsupported, match=says):
            replay(recording, one(request))


def test_a_pool_may_stand_under_its_own_name(recording):
    async def method():
        return await Sample(PROMPT, "pool", 0, max_tokens=200, temperature=0.8)

    run = Runtime({"pool": Pool(recording, of={"pool": NAME})}).run(method())
    assert set(run.cost.counts) == {"pool"}


def test_samples_cut_by_a_clip_are_not_recorded():
    async def method():
        return await asking(0, most=200, at_least=1)

    run = Runtime({NAME: toy_backend(NAME)}).run(method(), budget=f"{len(PROMPT.text) + 3} tokens")
    recording = Recording()
    recording.take(run.trace.served())
    assert not any(
        sample.finish == "length" and len(sample.tokens) < 3 for group in recording.samples.values() for sample in group
    )


def test_samples_without_token_ids_are_not_guessed():
    class Bare:
        tokens = None

    with pytest.raises(Unsupported, match="token ids"):
        Recording().add(asking(0), Bare(), prompt_tokens=3)
