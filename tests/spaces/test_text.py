"""Texts: when they are done, what they cost, what a budget leaves of them."""

from __future__ import annotations

import pytest

from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Draft
from outthink.core.runtime import Runtime
from outthink.models.toy import CARD, toy_answer, toy_backend, toy_problems
from outthink.spaces.text import State, Text
from outthink.testing import conformance

MODEL = "toy/t1"
PROMPT = toy_problems(1)[0].prompt


def backends():
    return {MODEL: toy_backend(MODEL)}


def text(**knobs):
    return Text(PROMPT, MODEL, toy_answer, **{"step": "\n", "temperature": 1.0, "max_tokens": 120} | knobs)


test_steps = conformance.laws(conformance.SpaceCase(text, backends, steps=20, cards={MODEL: CARD}))
test_whole = conformance.laws(conformance.SpaceCase(lambda: text(step=None), backends, steps=1, cards={MODEL: CARD}))
test_cut_steps = conformance.laws(
    conformance.SpaceCase(lambda: text(step_tokens=3, max_steps=60), backends, steps=60, cards={MODEL: CARD})
)


def run(coro, **options):
    return Runtime(backends(), cards={MODEL: CARD}).run(coro, answer=lambda state: None, **options)


def grow(space):
    async def all_the_way():
        state = await space.root(0)
        states = []
        while not space.is_done(state):
            (state,) = await space.expand(state, 1, len(states))
            states.append(state)
        return states

    return run(all_the_way()).state


def test_a_path_grows_line_by_line_and_ends_with_its_answer_line():
    states = grow(text())
    assert [state.steps for state in states] == list(range(1, 10))
    assert all(state.text.endswith("\n") for state in states[:-1]) and not any(s.done for s in states[:-1])
    assert text().answer(states[-1]) == toy_answer(states[-1].text) is not None
    assert states[-1].tokens == len(states[-1].text)


@pytest.mark.parametrize(("knobs", "tokens", "steps"), [({"max_tokens": 30}, 30, 4), ({"max_steps": 2}, 16, 2)])
def test_caps_end_a_path_without_an_answer(knobs, tokens, steps):
    last = grow(text(**knobs))[-1]
    assert (last.tokens, last.steps, last.done) == (tokens, steps, True)
    assert text().answer(last) is None


def test_a_whole_completion_is_one_step():
    assert len(grow(text(step=None))) == 1


@pytest.mark.parametrize(
    ("draft", "done"),
    [
        (("# 42\n", "stop", "\n"), True),
        (("+1\n", "stop", "\n"), False),
        (("+1", "length", None), False),  # cut by the step's cap: goes on
        (("+1", "end", None), True),
        (("", "length", None), True),  # nothing came: asking again would not help
        (("+1", "monitor", None), True),
    ],
)
def test_when_a_step_ends_the_path(draft, done):
    root = Prefix("p")
    words, finish, stop = draft
    space = Text("p", "m", toy_answer, step="\n", step_tokens=4)
    state = space._next(State(root), Draft(words, finish, root.extend(words), stop=stop))
    assert state.done is done


def test_a_finished_state_has_no_children_and_pays_nothing():
    done = run(text().expand(State(Prefix(PROMPT), done=True), 3, 0))
    assert done.state == [] and not done.cost


def test_the_price_bounds_a_whole_path_and_falls_once_the_prompt_is_held():
    space = text()

    async def priced():
        before = await space.price()
        state = await space.root(0)
        while not space.is_done(state):
            (state,) = await space.expand(state, 1, 0)
        return before, await space.price(), await space.price(10)

    finished = run(priced())
    before, after, short = finished.state
    for unit in ("prompt", "output", "calls", "attended"):
        assert finished.cost.total(unit) <= before.total(unit)
    assert after.total("prompt") == 0 < before.total("prompt") == len(PROMPT)
    assert short.total("output") == 10


def test_children_that_the_budget_does_not_pay_for_do_not_come():
    space = text(at_least=None, step_tokens=10)

    async def four():
        return await space.expand(await space.root(0), 4, 0)

    # the bounds of a step are 10, and what it takes is 8
    assert len(run(four(), budget=f"{len(PROMPT) + 26} tokens").state) == 3


@pytest.mark.parametrize("knobs", [{"max_tokens": 0}, {"step": ""}, {"step_tokens": 0}])
def test_what_makes_no_sense_is_refused(knobs):
    with pytest.raises(InvalidInput):
        text(**knobs)


def test_an_empty_prompt_is_refused():
    with pytest.raises(InvalidInput, match="prompt is empty"):
        Text("", MODEL, toy_answer)
