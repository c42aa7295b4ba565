"""Sampling, racing, adaptive stopping and the certain answer, on the toy world."""

from __future__ import annotations

import pytest

from outthink.core.errors import InvalidInput, OutOfBudget
from outthink.core.runtime import Runtime
from outthink.core.trace import Decision, Served
from outthink.core.verbs import bound, gather, keep
from outthink.methods.adaptive import adaptive, beta
from outthink.methods.finish import finishing, opening
from outthink.methods.pace import Pace
from outthink.methods.race import race
from outthink.methods.rollout import once
from outthink.methods.sample import sample
from outthink.methods.vote import best, majority
from outthink.models.toy import toy_answer, toy_backend, toy_problems
from outthink.spaces.text import Text
from outthink.testing.scripted import Scripted, job
from outthink.verifiers.process_reward import ProcessReward

MODEL = "toy/lengths"
PROMPT = toy_problems(1, bins=(0.8,))[0].prompt
TEXT = Text(PROMPT, MODEL, toy_answer, max_tokens=80, temperature=1.0)
JUDGE = ProcessReward(MODEL)
PACE = Pace(lambda state: state.tokens, TEXT.max_tokens, TEXT.price)


def run(coro, budget=None, **knobs):
    return Runtime({MODEL: toy_backend(MODEL, **knobs)}).run(coro, budget=budget, answer=TEXT.answer)


def drafts(done):
    return [e for e in done.trace.events if isinstance(e, Served) and e.cost.total("output")]


@pytest.mark.parametrize("n", [1, 3, 7])
def test_n_answers_are_drawn_and_one_is_chosen(n):
    done = run(sample(TEXT, choose=majority, n=n, seed=0))
    assert len(drafts(done)) == n and done.stopped == "finished" and done.answer is not None
    assert len({e.reply.text for e in drafts(done)}) == n, "seeds differ"


def test_every_draft_is_scored_and_the_best_wins():
    done = run(sample(TEXT, JUDGE, choose=best, n=5, seed=0))
    scores = [e.reply.value for e in done.trace.events if isinstance(e, Served) and not e.cost.total("output")]
    assert len(scores) == 5 and done.value == pytest.approx(max(scores))


def test_a_draft_is_kept_before_its_score_is_paid_for():
    first = run(sample(TEXT, choose=majority, n=1, seed=0))
    done = run(sample(TEXT, JUDGE, choose=best, n=1, seed=0), budget="1 calls")
    assert done.answer == first.answer is not None and done.value is None


@pytest.mark.parametrize("tokens", range(200, 1400, 97))
def test_as_many_answers_as_the_budget_pays_for(tokens):
    done = run(sample(TEXT, choose=majority, pace=PACE, seed=0), budget=tokens)
    assert done.cost.tokens <= tokens
    lengths = [e.cost.total("output") for e in drafts(done)]
    assert tokens - done.cost.tokens < max(lengths), "there was money for one more"


def test_without_a_limit_sixteen_are_drawn():
    assert len(drafts(run(sample(TEXT, choose=majority, pace=PACE, seed=0)))) == 16
    assert len(drafts(run(sample(TEXT, choose=majority, seed=0)))) == 16


def test_what_was_seen_counts_among_n():
    async def seen():
        return await sample(TEXT, choose=majority, n=3, seen=[await once(TEXT, seed=9)], seed=0)

    assert len(drafts(run(seen()))) == 3


def test_a_race_takes_the_shortest_and_pays_for_the_others():
    done = run(race(TEXT, n=6, seed=0), speed=1)
    served = [e for e in done.trace.events if isinstance(e, Served)]
    winners = [e for e in served if e.status == "done"]
    assert len(winners) == 1 and len(served) == 6
    length = winners[0].cost.total("output")
    assert all(length <= e.cost.total("output") <= length + 1 for e in served)
    assert sum(e.cost.tokens for e in served) == done.cost.tokens


def test_a_race_of_k_votes_among_k():
    done = run(race(TEXT, n=6, k=3, seed=0), speed=1)
    assert len([e for e in done.trace.events if isinstance(e, Served) and e.status == "done"]) >= 3
    assert done.answer is not None


def test_a_finish_without_an_answer_is_no_finish():
    mute = Text(PROMPT, MODEL, lambda text: None, max_tokens=80)
    done = Runtime({MODEL: toy_backend(MODEL)}).run(race(mute, n=3, seed=0), answer=mute.answer)
    assert done.stopped == "no answer" and done.state is not None
    with pytest.raises(InvalidInput, match="k is 3"):
        run(race(TEXT, n=2, k=3, seed=0))


def test_adaptive_sampling_stops_after_four_that_agree():
    sure = Text(PROMPT, MODEL, lambda text: "7", max_tokens=80)
    done = Runtime({MODEL: toy_backend(MODEL)}).run(adaptive(sure, most=40, seed=0), answer=sure.answer)
    assert len(drafts(done)) == 4 and done.value == 4


def test_adaptive_sampling_stops_when_nobody_can_catch_up():
    done = Runtime({MODEL: toy_backend(MODEL)}).run(
        adaptive(Text(PROMPT, MODEL, lambda text: "7"), most=3, stop=beta(1.0), seed=0), answer=lambda s: "7"
    )
    assert len(drafts(done)) == 2


def test_adaptive_chunks_overshoot_by_less_than_a_chunk():
    sure = Text(PROMPT, MODEL, lambda text: "7", max_tokens=80)
    done = Runtime({MODEL: toy_backend(MODEL)}).run(adaptive(sure, most=40, chunk=3, seed=0), answer=sure.answer)
    assert len(drafts(done)) == 6


# -- the certain answer: scripted work, so that every token is known


def work(*pieces, kept=None, answer="method"):
    """A method: pays for `pieces` one after the other, then answers; keeps `kept` before it begins."""

    async def method():
        if kept is not None:
            await keep(kept, complete=True)
        for tag, worst in enumerate(pieces):
            await job(worst, tag=("method", tag))
        return answer

    return method


def greedy(worst=10, cost=None):
    async def one():
        await job(worst, cost, tag="greedy")
        return "greedy"

    return one


def finish(method, one, budget, reserve=10):
    async def whole():
        return await finishing(method, one, reserve=await bound(job(reserve)), answer=lambda s: s or None)

    return Runtime({"scripted": Scripted()}).run(whole(), budget=f"{budget} output tokens", answer=lambda s: s or None)


@pytest.mark.parametrize(
    ("budget", "answer", "spent"),
    [
        (50, "method", 30),
        (40, "method", 30),  # the reserve is set aside, and all the rest is the method's
        (39, "greedy", 30),  # its last piece would have to touch the reserve
        (10, "greedy", 10),
        (9, None, 0),
    ],
)
def test_the_reserve_is_spent_only_if_the_method_has_no_answer(budget, answer, spent):
    done = finish(work(10, 10, 10), greedy(), budget)
    assert (done.answer, done.cost.total("output")) == (answer, spent)


def test_with_something_complete_kept_the_reserve_is_not_touched():
    done = finish(work(10, 10, 10, kept="draft"), greedy(), 25)
    assert (done.answer, done.stopped, done.cost.total("output")) == ("draft", "budget", 10)


def test_a_method_without_an_answer_makes_way_for_greedy():
    done = finish(work(10, answer=""), greedy(), 50)
    assert (done.answer, done.cost.total("output")) == ("greedy", 20)


def test_where_the_reserve_cannot_be_set_aside_greedy_goes_first_and_the_method_has_the_rest():
    done = finish(work(4), greedy(worst=8, cost=3), 9, reserve=20)
    assert (done.answer, done.cost.total("output")) == ("method", 7)


def test_what_the_method_keeps_is_there_when_the_run_is_cancelled():
    runtime = Runtime({"scripted": Scripted()})

    async def whole():
        reserve = await bound(job(10))
        return await finishing(work(5, 5, kept="draft"), greedy(), reserve=reserve, answer=lambda s: s or None)

    run = runtime.start(whole(), answer=lambda s: s or None)
    runtime.step()
    run.cancel()
    runtime.drive()
    assert (run.stopped, run.answer) == ("cancelled", "draft")


def test_the_error_of_a_method_is_raised_through_the_certain_answer():
    async def broken():
        await job(1)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        finish(broken, greedy(), 50)


@pytest.mark.parametrize(("budget", "answer"), [(30, "method"), (19, "greedy"), (9, None)])
def test_opening_goes_on_with_what_greedy_left(budget, answer):
    async def whole():
        async def method(seen):
            assert seen == ["greedy"]
            await gather([job(10)])
            return "method"

        return await opening(method, greedy(), answer=lambda s: s or None)

    done = Runtime({"scripted": Scripted()}).run(whole(), budget=f"{budget} output tokens", answer=lambda s: s or None)
    assert done.answer == answer


def test_no_draft_at_all_is_out_of_budget():
    done = run(sample(TEXT, choose=majority, n=3, pace=PACE, seed=0), budget=3)
    assert done.stopped == "budget" and not done.cost.tokens
    refused = [e for e in done.trace.events if isinstance(e, Decision) and e.kind == "refuse"]
    assert refused and isinstance(OutOfBudget("a", "b"), Exception)
