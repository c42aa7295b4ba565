"""The toy world does what its closed forms say."""

from __future__ import annotations

from math import exp, isclose, sqrt
from typing import Any

import pytest

from outthink.core.budget import Budget
from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.monitor import GO, Force, Halt
from outthink.core.refs import Prefix
from outthink.core.request import Embed, Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.core.verbs import first, gather
from outthink.models.toy import WORLDS, toy_answer, toy_backend, toy_key, toy_problems
from outthink.models.toy_process import BINS, DERAILED, HACKED, ON_TRACK, World, clipped_logit, gauss
from outthink.models.toy_text import Writer, rewards


def ask(name: str, requests: Any, **knobs: Any) -> list[Any]:
    async def method() -> Any:
        return await gather(requests)

    return Runtime({name: toy_backend(name, speed=1000, **knobs)}).run(method(), trace=None).state


def close(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) < 4 * sqrt(max(expected * (1 - expected), 1e-4) / n)


@pytest.mark.parametrize("p", BINS)
def test_pass_at_1_and_length_are_what_the_recursion_says(p: float) -> None:
    (problem,) = toy_problems(1, bins=(p,))
    n = 600
    drafts = ask("toy/t1", (Sample(Prefix(problem.prompt), "toy/t1", i) for i in range(n)))
    right = sum(toy_answer(d.text) == toy_key(problem) for d in drafts) / n
    world = WORLDS["toy/t1"]
    assert close(right, world.pass_at_1(p), n)
    assert {len(d.text) for d in drafts} == {68} and isclose(world.mean_tokens(p), 68)


def test_coverage_is_that_of_independent_samples() -> None:
    world = World(p=0.8)
    once = world.pass_at_1(0.8)
    assert isclose(world.coverage(0.8, 3), once + (1 - once) * once + (1 - once) ** 2 * once)
    assert world.coverage(0.8, 0) == 0


def test_values_are_a_martingale() -> None:
    world = World(q=0.01)
    for done in range(world.steps):
        for state in (DERAILED, ON_TRACK, HACKED):
            after = [world.value(done + 1, s, 0.7) for s in range(3)]
            mean = sum(m * v for m, v in zip(world.moves(state, 0.7), after, strict=True))
            assert isclose(world.value(done, state, 0.7), mean)
            assert isclose(sum(world.moves(state, 0.7)), 1)
    assert world.value(world.steps, ON_TRACK, 0.7) == 1 and world.value(3, HACKED, 0.7) == 0


@pytest.mark.parametrize("name", ["toy/longer", "toy/shorter", "toy/lengths"])
def test_lengths_have_the_distribution_that_is_promised(name: str) -> None:
    world = WORLDS[name]
    n = 800
    drafts = ask(name, (Sample(Prefix("x\n"), name, i) for i in range(n)))
    wrong, right = world.lengths(world.p)
    assert isclose(sum(wrong) + sum(right), 1) and isclose(sum(right), world.pass_at_1(world.p))
    mean = world.mean_tokens(world.p)
    spread = sqrt(sum((k - mean) ** 2 * (a + b) for k, (a, b) in enumerate(zip(wrong, right, strict=True))))
    assert abs(sum(len(d.text) for d in drafts) / n - mean) < 4 * spread / sqrt(n)
    assert max(len(d.text) for d in drafts) <= world.longest


@pytest.mark.parametrize("name", ["toy/longer", "toy/shorter"])
def test_the_first_to_finish_is_right_as_often_as_computed(name: str) -> None:
    world, n, races = WORLDS[name], 4, 250

    async def race(i: int) -> Any:
        (draft,) = await first(Sample(Prefix("x\n"), name, fold(i, k)) for k in range(n))
        return draft.text

    async def method() -> Any:
        return await gather(race(i) for i in range(races))

    texts = Runtime({name: toy_backend(name, speed=1, slots=10_000)}).run(method(), trace=None).state
    right = toy_key(type("P", (), {"prompt": "x\n"})())
    share = sum(toy_answer(t) == right for t in texts) / races
    assert close(share, world.first_finish(world.p, n), races)
    assert isclose(world.first_finish(world.p, 1), world.pass_at_1(world.p))


def test_a_cut_draft_is_the_beginning_of_the_whole_one_and_goes_on() -> None:
    prompt = Prefix("x p=0.9\n")
    whole, cut = ask("toy/t1", [Sample(prompt, "toy/t1", 3), Sample(prompt, "toy/t1", 3, max_tokens=11)])
    assert whole.text.startswith(cut.text) and (cut.finish, whole.finish) == ("length", "end")
    (rest,) = ask("toy/t1", [Sample(cut.prefix, "toy/t1", 5)])
    done = Writer(WORLDS["toy/t1"], prompt.text, cut.text + rest.text)
    assert done.answer is not None and done.steps == 8
    (nothing,) = ask("toy/t1", [Sample(rest.prefix, "toy/t1", 5)])
    assert (nothing.text, nothing.finish) == ("", "end")


def test_greedy_does_not_look_at_its_seed() -> None:
    one, two = ask("toy/lengths", [Sample(Prefix("x\n"), "toy/lengths", s, temperature=0) for s in (1, 2)])
    assert one.text == two.text and set(one.text) >= {"+"} and "-" not in one.text


@pytest.mark.parametrize(
    ("knobs", "symbols"), [({"top_p": 0.5}, "+"), ({"min_p": 0.9}, "+"), ({"temperature": 9.0}, "+-")]
)
def test_truncation_and_temperature_act_on_decisions(knobs: dict[str, float], symbols: str) -> None:
    drafts = ask("toy/t1", [Sample(Prefix("x p=0.8\n"), "toy/t1", i, **knobs) for i in range(20)])  # type: ignore[arg-type]
    assert {line[0] for d in drafts for line in d.text.split("\n")[:8]} == set(symbols)


def test_logprobs_are_those_that_score_gives() -> None:
    (draft,) = ask("toy/lengths", [Sample(Prefix("x\n"), "toy/lengths", 4, logprobs=True)])
    (scored,) = ask("toy/lengths", [Score(draft.prefix, "toy/lengths", of="logprob")])
    assert isclose(scored.value, sum(draft.logprobs)) and len(draft.logprobs) == len(draft.text)


def test_logprobs_are_calibrated() -> None:
    """The mean of exp(-logprob) of a decision counts its options: here two states are possible."""
    drafts = ask("toy/t1", [Sample(Prefix("x p=0.65\n"), "toy/t1", i, max_tokens=1, logprobs=True) for i in range(500)])
    assert abs(sum(exp(-d.logprobs[0]) for d in drafts) / 500 - 2) < 0.25


def test_the_dial_of_the_reward_model() -> None:
    prompt = "x p=0.8\n"
    text = "+123456\n-123456\n+123456\n"
    perfect = WORLDS["toy/perfect"]
    values = rewards(perfect, prompt, text, [8, 16, 24])
    for value, (done, state) in zip(values, [(1, ON_TRACK), (2, DERAILED), (3, ON_TRACK)], strict=True):
        assert isclose(value, 1 / (1 + exp(-clipped_logit(perfect.value(done, state, 0.8)))))
    blind = rewards(WORLDS["toy/blind"], prompt, text, [8, 16, 24])
    assert blind != values and all(0 < v < 1 for v in blind)
    hacked = rewards(World(noise=0, style=0, hack=1.3), prompt, "!12\n", [4])
    assert isclose(hacked[0], 1 / (1 + exp(-1.3)))


def test_style_is_inherited() -> None:
    world = World(sharpness=0, noise=0, style=1.0)
    one = rewards(world, "x\n", "+1\n+2\n", [3, 6])
    two = rewards(world, "x\n", "+1\n+3\n", [3, 6])
    assert one[0] == two[0] and one[1] != two[1]


def test_scores_of_steps() -> None:
    prompt = Prefix("x\n")
    full, part, none, root = ask("toy/t1", [
        Score(prompt.extend("+1\n+2\n"), "toy/t1", step="\n"), Score(prompt.extend("+1\n+2"), "toy/t1", step="\n"),
        Score(prompt.extend("+1\n+2\n"), "toy/t1"), Score(prompt, "toy/t1", step="\n"),
    ])  # fmt: skip
    assert len(full.steps) == 2 == len(part.steps) and full.steps[-1] == full.value == none.value
    assert full.steps[0] == part.steps[0] and none.steps == () == root.steps


def test_monitors_halt_take_back_and_force() -> None:
    class Rule:
        def __init__(self, at: int, action: Any) -> None:
            self.at, self.action = at, action

        def start(self) -> int:
            return 0

        def step(self, memory: int, text: str, logprob: float | None) -> Any:
            return memory + 1, self.action if memory + 1 == self.at else GO

    def sample(rule: Rule) -> Any:
        (draft,) = ask("toy/t1", [Sample(Prefix("x\n"), "toy/t1", 1, monitor=rule, logprobs=True)])
        return draft

    halted, taken = sample(Rule(5, Halt())), sample(Rule(5, Halt(back=2)))
    assert (len(halted.text), len(taken.text), taken.finish, taken.memory) == (5, 3, "monitor", 5)
    assert len(taken.logprobs) == 3
    forced = sample(Rule(8, Force("wait\n")))
    assert forced.text[8:13] == "wait\n" and forced.text.count("\n") == 9 and toy_answer(forced.text)


def test_answers_of_texts() -> None:
    assert [toy_answer(t) for t in ("+1\n# 42", "# 42\n", "+1\n# 4", "x# 42", "", "# 42\n+1")] == [
        "42",
        "42",
        None,
        None,
        None,
        None,
    ]


def test_problems_and_keys_are_stable() -> None:
    problems = toy_problems(7, seed=3)
    assert problems == toy_problems(7, seed=3) != toy_problems(7, seed=4)
    assert [p.data["p"] for p in problems[:5]] == list(BINS) and toy_problems(0) == []
    assert len({toy_key(p) for p in toy_problems(50)}) > 20
    assert abs(sum(gauss("test", i) for i in range(400)) / 400) < 0.2


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'toy/t1'"):
        toy_backend("toy/t2")
    with pytest.raises(InvalidInput, match="p, rho, q"):
        toy_backend("toy/t1", p=1.5)
    for request, error in [
        (Embed("x", "toy/t1"), Unsupported), (Sample(Prefix("x"), "toy/t1", 0, hidden=True), Unsupported),
        (Sample(Prefix("x"), "toy/t1", 0, max_tokens=-1), InvalidInput),
        (Sample(Prefix("x" * 5000), "toy/t1", 0), InvalidInput),
    ]:  # fmt: skip

        async def method(request: Any = request) -> Any:
            return await request

        with pytest.raises(error):
            Runtime({"toy/t1": toy_backend("toy/t1")}).run(method(), budget=Budget())
