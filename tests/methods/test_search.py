"""The level-synchronous loop on a small tree whose words are known: who is grown, who votes, what a budget leaves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from outthink.core.backend import Settled
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample
from outthink.core.runtime import Runtime
from outthink.core.verbs import bound
from outthink.core.verdict import Verdict
from outthink.methods import rules
from outthink.methods.pace import Pace
from outthink.methods.search import search
from outthink.methods.vote import best, majority, weighted

STEP = 4


class Letters:
    """Appends "a" or "b" by the seed's parity; a token a letter, and the prompt is free."""

    stepped = True
    capabilities = frozenset({"sample"})

    def __init__(self) -> None:
        self.waiting: list = []

    def bound(self, ticket, request):
        return Cost.of(request.model, calls=1, output=request.max_tokens)

    def room(self):
        return 1000

    def submit(self, ticket, request):
        self.waiting.append((ticket, request))

    def cancel(self, ticket):
        raise AssertionError("a level-synchronous search cancels nothing")

    def step(self) -> Sequence[Settled]:
        out, self.waiting = self.waiting, []
        return [
            Settled(t, Draft(w, "stop", r.prefix.extend(w)), Cost.of(r.model, calls=1, output=len(w)))
            for t, r in out
            for w in ["ab"[r.seed % 2]]
        ]

    def attach(self, post):
        pass

    def close(self):
        pass


class Words:
    """Words of `STEP` letters; the answer is their number of "a", a word that begins with "x" has none."""

    forks = True

    def __init__(self, length: int = STEP) -> None:
        self.length, self.grown = length, []

    async def root(self, seed):
        return Prefix(">")

    async def expand(self, state, n, seed):
        self.grown.append((state.written, n))
        return [(await Sample(state, "letters", seed + i, max_tokens=1)).prefix for i in range(n)]

    def is_done(self, state):
        return len(state.written) >= self.length

    def answer(self, state):
        return str(state.written.count("a")) if self.is_done(state) else None


class Liking:
    """Rewards the share of "a"; `wrong` words get an error."""

    scale, oracle = "probability", False

    def __init__(self, wrong: Sequence[str] = ()) -> None:
        self.wrong = wrong

    async def __call__(self, states, *, seed):
        return [
            Verdict(0.0, "error") if s.written in self.wrong else Verdict(s.written.count("a") / max(1, len(s.written)))
            for s in states
        ]


def pace():
    return Pace(
        length=lambda state: len(state.written), longest=STEP,
        price=lambda length: _price(length),
    )  # fmt: skip


async def _price(length):
    return await bound(Sample(Prefix(">"), "letters", 0, max_tokens=length))


def run(space=None, verifier=None, budget=None, **options):
    space = space or Words()
    knobs = {"rule": rules.beam(fan=2), "choose": best, "width": 4, "seed": 1} | options
    coro = search(space, verifier or Liking(), **knobs)
    return space, Runtime({"letters": Letters()}).run(coro, budget=budget, answer=space.answer)


def levels(space) -> list[dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for word, n in space.grown:
        row = found.setdefault(len(word), {})
        row[word] = row.get(word, 0) + n
    return [found[key] for key in sorted(found)]


def test_beam_grows_the_two_best_by_two_each():
    space, done = run()
    rows = levels(space)
    assert rows[0] == {"": 4}
    for before, row in enumerate(rows[1:], 1):
        assert sum(row.values()) == 4
        assert all(len(word) == before for word in row)
    assert done.answer == "4" and done.value == 1.0


def test_a_finished_path_takes_its_place_with_it_only_with_refund():
    class Early(Words):
        def is_done(self, state):
            return len(state.written) >= STEP or state.written.endswith("b")

        def answer(self, state):
            return state.written if self.is_done(state) else None

    for refund, expected in ((True, False), (False, True)):
        space, _ = run(Early(), rule=rules.beam(fan=1, refund=refund), width=8)
        rows = levels(space)
        assert rows[0] == {"": 8}
        finished = any(sum(row.values()) == 8 for row in rows[1:])
        assert finished is expected, (refund, rows)


def test_rebase_at_a_low_temperature_is_greedy_and_at_a_high_one_even():
    cold, _ = run(rule=rules.rebase(temperature=0.001), width=6)
    assert all(len({word.count("a") for word in row}) == 1 for row in levels(cold))
    warm, _ = run(rule=rules.rebase(temperature=1e6), width=2, seed=5)
    assert all(sum(row.values()) == 2 for row in levels(warm))


def test_dvts_keeps_its_islands_apart():
    space, done = run(rule=rules.dvts(fan=2), width=6)
    for row in levels(space)[1:]:
        assert sum(row.values()) == 6 and all(n % 2 == 0 for n in row.values())
    assert done.answer is not None


def test_islands_are_dealt_at_the_root_and_a_finished_leader_ends_its_own():
    nodes = [
        rules.Node("a", 0.9, True, 0), rules.Node("b", 0.8, False, 0),
        rules.Node("c", 0.1, True, 1), rules.Node("d", 0.2, False, 1),
    ]  # fmt: skip
    assert rules.dvts(fan=2).widths(nodes, 4, 0) == [0, 0, 0, 2]
    assert rules.beam(fan=2).widths(nodes, 4, 0) == [0, 2, 0, 2]


@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
def test_particles_stay_as_many_as_there_were(absorb, resampling):
    space, done = run(rule=rules.particles(absorb=absorb, resampling=resampling), width=5, choose=weighted)
    assert all(sum(row.values()) == 5 for row in levels(space))
    assert done.answer is not None


def test_absorbed_particles_are_drawn_again_and_live_on_without_cost():
    nodes = [rules.Node("done", 0.6, True), rules.Node("open", 0.4, False)]
    rule = rules.particles(potential="prob", resampling="systematic")
    counts = [rule.widths(nodes, 3, seed) for seed in range(30)]
    assert all(sum(row) == 3 for row in counts) and {row[0] for row in counts} == {1, 2}
    aside = rules.particles(absorb=False, resampling="systematic")
    assert aside.widths(nodes, 2, 0) == [0, 2]


def test_a_node_that_cannot_be_scored_is_not_grown():
    space, done = run(verifier=Liking(wrong=("a",)), width=8)
    assert "a" not in levels(space)[1] and "b" in levels(space)[1]
    assert done.answer is not None


def test_without_any_score_nothing_is_grown_and_there_is_no_answer():
    space, done = run(verifier=Liking(wrong=("a", "b")))
    assert len(levels(space)) == 1 and done.answer is None and done.stopped == "budget"


@pytest.mark.parametrize("tokens", range(0, 60, 3))
def test_a_search_that_plans_finishes_what_it_starts(tokens):
    _, done = run(rule=rules.rebase(), width=None, pace=pace(), budget=f"{tokens} output tokens", choose=majority)
    assert done.cost.total("output") <= tokens
    if tokens >= STEP:
        assert done.answer is not None
        assert tokens - done.cost.total("output") < STEP, "there was money for one more path"


def test_a_wide_search_shrinks_to_what_it_can_carry():
    space, done = run(rule=rules.rebase(), width=8, pace=pace(), budget=f"{3 * STEP} output tokens")
    assert done.answer is not None and levels(space)[0][""] <= 6


def test_without_a_limit_a_planned_search_is_sixteen_wide_once():
    space, _ = run(rule=rules.rebase(), width=None, pace=pace())
    assert levels(space)[0] == {"": 16}


def test_what_was_seen_takes_part():
    greedy = Prefix(">").extend("aaaa")
    _, done = run(verifier=Liking(), rule=rules.rebase(), width=2, seen=[greedy], choose=best, pace=pace())
    assert done.answer == "4" and done.state == greedy


@pytest.mark.parametrize("knobs", [{"width": 3}, {"width": 0}, {"width": None}])
def test_widths_that_make_no_sense_are_refused(knobs):
    with pytest.raises(InvalidInput, match="width"):
        run(**knobs)
