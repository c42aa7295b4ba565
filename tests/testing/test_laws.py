"""The laws themselves: each notices the mistake it is for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from outthink.core.backend import Failure, Settled
from outthink.core.budget import Budget, Limit
from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.seeds import fold
from outthink.core.verbs import first, fitting, gather, keep
from outthink.core.verdict import Verdict
from outthink.models.toy import Toy, toy_answer, toy_backend
from outthink.testing import conformance
from outthink.testing.conformance import (
    BackendCase,
    MethodCase,
    SpaceCase,
    VerifierCase,
    backends,
    drafts,
    methods,
    spaces,
    verifiers,
)
from outthink.testing.toy_world import MODEL, ToyReward, ToySpace, rollout, toy_backends

SPACE = ToySpace()


def wrote(reply: Any) -> str | None:
    return toy_answer(reply.prefix.text) if hasattr(reply, "prefix") else None


def method_case(make: Callable[[int], Any], **changes: Any) -> MethodCase:
    case = MethodCase(make, lambda: toy_backends(steps=3, tokens=5), answer=lambda s: toy_answer(s.text), examples=6)
    return replace(case, **changes)


async def good(seed: int) -> Any:
    return await rollout(SPACE, seed=seed)


async def forgets(seed: int) -> Any:
    """Loses what its branches wrote when one of them is refused."""
    return (await gather(rollout(SPACE, seed=fold(seed, i)) for i in range(3)))[0]


async def looks_at_the_clock(seed: int) -> Any:
    return await rollout(SPACE, seed=seed + int(time.time() * 0))


async def throws_dice(seed: int) -> Any:
    return await rollout(SPACE, seed=random.randrange(10**9))


async def raises(seed: int) -> Any:
    state = await rollout(SPACE, seed=seed)
    return {}["missing"] if state is not None else None


async def races(seed: int) -> Any:
    return (await first(rollout(SPACE, seed=fold(seed, i)) for i in range(3)))[0]


async def starves(seed: int) -> Any:
    """Asks for eight rollouts without setting anything aside."""
    states = await fitting([rollout(SPACE, seed=fold(seed, i)) for i in range(8)])
    return next(state for state in states if state is not None)


async def cuttable(seed: int) -> Any:
    """Samples whole solutions that may be cut, so that they can be paid in slices."""

    async def one(i: int) -> Any:
        state = await SPACE.root(seed)
        state = (await Sample(state, MODEL, fold(seed, i), max_tokens=64, at_least=1)).prefix
        await keep(state, None, complete=SPACE.answer(state) is not None)
        return state

    states = [state for state in await fitting(one(i) for i in range(6)) if state is not None]
    for state in states:
        await keep(state, None, complete=SPACE.answer(state) is not None)
    return next((state for state in states if SPACE.answer(state) is not None), None)


async def answers_nothing(seed: int) -> Any:
    await good(seed)
    return Prefix("no idea")


GLOBAL: list[int] = []


async def remembers(seed: int) -> Any:
    GLOBAL.append(seed)
    return await rollout(SPACE, seed=seed + len(GLOBAL))


BROKEN_METHODS = [
    (methods.produced_answers_are_not_lost, forgets, {"produced": wrote, "examples": 25}),
    (methods.no_clock_and_no_global_chance, looks_at_the_clock, {}),
    (methods.no_clock_and_no_global_chance, throws_dice, {}),
    (methods.same_seed_same_trace, throws_dice, {}),
    (methods.same_seed_same_trace, remembers, {}),
    (methods.never_over_budget, raises, {"examples": 25}),
    (methods.order_of_completion_does_not_matter, races, {}),
    (methods.an_answer_is_found, raises, {}),
    (methods.the_floor_gives_an_answer, starves, {"floor": Budget((Limit("tokens", 40),))}),
    (
        methods.what_is_paid_for_is_finished,
        starves,
        {"produced": wrote, "asks": 8, "per_answer": Cost.of(MODEL, output=70)},
    ),
    (methods.runs_replay_without_a_model, remembers, {}),
    (methods.needs_are_told, good, {"needs": frozenset({"sample"})}),
]


@pytest.mark.parametrize(("law", "make", "changes"), BROKEN_METHODS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_law_notices_a_broken_method(law: Any, make: Any, changes: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017  (an AssertionError, or the mistake itself with its place)
        law(method_case(make, **changes))


@pytest.mark.parametrize("law", conformance.METHOD_LAWS, ids=lambda law: law.__name__)
def test_a_good_method_passes(law: Any) -> None:
    law(method_case(good, produced=wrote, examples=4))


@pytest.mark.parametrize("law", conformance.METHOD_LAWS, ids=lambda law: law.__name__)
def test_a_good_method_keeps_every_law_in_slices(law: Callable[[MethodCase], None]) -> None:
    law(method_case(cuttable, produced=wrote, examples=8, slices=3))


def test_a_method_without_answers_is_noticed() -> None:
    case = method_case(answers_nothing, answer=lambda s: None)
    with pytest.raises(AssertionError, match="no answer from any"):
        methods.an_answer_is_found(case)


class Wrong(Toy):
    """A toy with one mistake. (Subclassed in a test only: the mistake is all it has of its own.)"""

    def __init__(self, mistake: str) -> None:
        toy = toy_backend(MODEL)
        super().__init__(toy.world, name=MODEL, speed=4)
        self.mistake, self.seen = mistake, 0

    def bound(self, ticket: Any, request: Any) -> Cost:
        if self.mistake == "takes anything" and not isinstance(request, Sample):
            return Cost.of(MODEL, calls=1)
        cost = super().bound(ticket, request)
        if self.mistake == "forgets what it holds":
            ticket = type("T", (), {"held": ()})()
            cost = super().bound(ticket, request)
        return cost

    def room(self) -> int:
        if self.mistake == "loses room":
            return 8 - self.seen
        return super().room()

    def submit(self, ticket: Any, request: Any) -> None:
        self.seen += 1
        if self.mistake == "ignores seeds" and isinstance(request, Sample):
            request = replace(request, seed=self.seen)
        if self.mistake == "ignores stops" and isinstance(request, Sample):
            request = replace(request, stop=())
        if self.mistake == "ignores monitors" and isinstance(request, Sample):
            request = replace(request, monitor=None)
        super().submit(ticket, request)

    def cancel(self, ticket: Any) -> None:
        if self.mistake == "loses the cancelled":
            self.live.pop(ticket, None)
        elif self.mistake == "charges the cancelled twice" and ticket in self.live:
            live = self.live.pop(ticket)
            self.ended.append(Settled(ticket, None, ticket.bound + live.cost(), Failure("cancelled")))
        else:
            super().cancel(ticket)

    def step(self) -> Sequence[Any]:
        items = list(super().step())
        out = []
        for item in items:
            if isinstance(item, Settled) and item.failure is None:
                if self.mistake == "settles twice":
                    out.append(item)
                if self.mistake == "costs too much":
                    item = replace(item, cost=item.ticket.bound + Cost.of(MODEL, output=1))
                if self.mistake == "undercounts":
                    item = replace(item, cost=Cost.of(MODEL, calls=1))
                if self.mistake == "loses the prefix" and hasattr(item.reply, "prefix"):
                    item = replace(item, reply=replace(item.reply, prefix=Prefix(item.reply.text)))
                if self.mistake == "always has logprobs" and hasattr(item.reply, "prefix"):
                    item = replace(item, reply=replace(item.reply, logprobs=(0.0,)))
                if self.mistake == "scores above one" and hasattr(item.reply, "steps"):
                    item = replace(item, reply=replace(item.reply, value=1.5))
            out.append(item)
        return out


BROKEN_BACKENDS = {
    "takes anything": backends.the_unsupported_is_refused_unpaid,
    "forgets what it holds": backends.held_prefixes_cost_nothing_again,
    "loses room": backends.room_is_kept,
    "ignores seeds": drafts.seeds_decide,
    "ignores stops": drafts.stops_end_a_draft,
    "ignores monitors": drafts.monitors_halt,
    "loses the cancelled": backends.cancelled_tickets_settle,
    "charges the cancelled twice": backends.cancelled_tickets_settle,
    "settles twice": backends.every_ticket_settles_exactly_once,
    "costs too much": backends.costs_stay_within_their_bounds,
    "undercounts": backends.costs_are_what_was_served,
    "loses the prefix": backends.drafts_continue_their_prefix,
    "always has logprobs": drafts.logprobs_are_one_per_token,
    "scores above one": drafts.rewards_are_probabilities,
}


@pytest.mark.parametrize("mistake", BROKEN_BACKENDS)
def test_a_law_notices_a_broken_backend(mistake: str) -> None:
    case = BackendCase(lambda: Wrong(mistake), MODEL, max_tokens=24, reward=MODEL)
    with pytest.raises(AssertionError):
        BROKEN_BACKENDS[mistake](case)
    BROKEN_BACKENDS[mistake](replace(case, make=lambda: Wrong("")))


class Doubling(ToySpace):
    async def expand(self, state: Prefix, n: int, seed: int) -> Sequence[Prefix]:
        return await super().expand(state, 2 * n, seed)


class Endless(ToySpace):
    def is_done(self, state: Prefix) -> bool:
        return False


class Messy(ToySpace):
    def answer(self, state: Prefix) -> str | None:
        found = super().answer(state)
        return f" {found} " if found else None


class Echo(ToySpace):
    async def expand(self, state: Prefix, n: int, seed: int) -> Sequence[Prefix]:
        return [state] * n


class Proud(ToySpace):
    """Raises when it cannot have all it asked for."""

    async def expand(self, state: Prefix, n: int, seed: int) -> Sequence[Prefix]:
        samples = (Sample(state, self.model, fold(seed, i), max_tokens=16, stop=("\n",)) for i in range(n))
        return [draft.prefix for draft in await gather(samples)]


@pytest.mark.parametrize(
    ("space", "law"),
    [
        (Doubling, spaces.expand_gives_at_most_n), (Endless, spaces.answers_are_canonical),
        (Messy, spaces.answers_are_canonical), (Echo, spaces.children_are_new_values),
        (Proud, spaces.a_short_budget_gives_what_fits),
    ],
)  # fmt: skip
def test_a_law_notices_a_broken_space(space: Any, law: Any) -> None:
    with pytest.raises(AssertionError):
        law(SpaceCase(space, toy_backends, steps=10))


class Broken(ToyReward):
    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake

    async def __call__(self, states: Sequence[Prefix], *, seed: int) -> Sequence[Verdict]:
        if self.mistake == "keeps":
            await keep("a critique", 0.99)
        if self.mistake == "asks for nothing":
            await gather([Sample(Prefix("x"), MODEL, seed, max_tokens=1)])
        if self.mistake == "mutates":
            states.append(states[0])  # type: ignore[attr-defined]
        verdicts = list(await super().__call__(states, seed=seed))
        match self.mistake:
            case "loses one":
                return verdicts[:-1]
            case "reverses":
                return verdicts[::-1]
            case "not a number":
                return [Verdict(float("nan")) for _ in verdicts]
            case "above one":
                return [Verdict(1 + v.value) for v in verdicts]
            case "hides failures":
                return [Verdict(0.0) if v.status == "error" else v for v in verdicts]
        return verdicts


BROKEN_VERIFIERS = {
    "keeps": verifiers.judging_keeps_nothing,
    "asks for nothing": verifiers.of_nothing_nothing,
    "mutates": verifiers.states_are_left_alone,
    "loses one": verifiers.one_verdict_per_state,
    "reverses": verifiers.the_order_of_states_is_kept,
    "not a number": verifiers.values_are_in_range,
    "above one": verifiers.values_are_in_range,
    "hides failures": verifiers.failures_are_no_scores,
}


@pytest.mark.parametrize("mistake", BROKEN_VERIFIERS)
def test_a_law_notices_a_broken_verifier(mistake: str) -> None:
    root = Prefix("x p=0.8\n")
    states = [root, root.extend("+12\n"), root.extend("-1\n")]
    with pytest.raises(AssertionError):
        BROKEN_VERIFIERS[mistake](VerifierCase(lambda: Broken(mistake), states, toy_backends))


def test_laws_are_a_pytest_test() -> None:
    case = BackendCase(lambda: toy_backend(MODEL), MODEL)
    test = conformance.laws(case, skip={"seeds_decide": "for a reason"})
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    assert [row.id for row in mark.args[1]] == [law.__name__ for law in conformance.BACKEND_LAWS]
    test(conformance.BACKEND_LAWS[0])
    with pytest.raises(KeyError, match="no such laws"):
        conformance.laws(case, skip={"sead": "a typing mistake"})
