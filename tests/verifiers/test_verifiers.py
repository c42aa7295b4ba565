"""What verifiers say, and what they refuse to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from outthink.core.backend import Settled
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix, nearest
from outthink.core.request import Draft, Sample, Scored
from outthink.core.runtime import Runtime
from outthink.core.verdict import Verdict
from outthink.spaces.text import State
from outthink.verifiers.exact import Exact
from outthink.verifiers.pairwise import BothOrders, FromVerifier, Judge, preferred
from outthink.verifiers.process_reward import ProcessReward
from outthink.verifiers.vote import Vote


class Rewards:
    """Scores by a table from text to steps; charges a token per character; answers samples with what `say` gives."""

    stepped = True
    capabilities = frozenset({"score", "sample", "prefix"})

    def __init__(self, table: dict[str, tuple[float, ...]] | None = None, say=None):
        self.table, self.say, self.waiting = table or {}, say, []
        self.served: list[Any] = []

    def bound(self, ticket, request):
        known = nearest(request.prefix, ticket.held)
        new = len(request.prefix.text) - (len(known.text) if known is not None else 0)
        return Cost.of(request.model, calls=1, prompt=new)

    def room(self):
        return 100

    def submit(self, ticket, request):
        self.waiting.append((ticket, request))

    def cancel(self, ticket):
        raise AssertionError("nothing is cancelled here")

    def step(self) -> Sequence[Settled]:
        out, self.waiting = self.waiting, []
        self.served += [request for _, request in out]
        return [Settled(ticket, self.reply(request), ticket.bound) for ticket, request in out]

    def reply(self, request):
        if isinstance(request, Sample):
            words = self.say(request.prefix.text)
            return Draft(words, "end", request.prefix.extend(words))
        steps = self.table[request.prefix.written]
        return Scored(steps[-1], steps)

    def attach(self, post):
        pass

    def close(self):
        pass


def state(words: str) -> State:
    return State(Prefix("?").extend(words))


def ask(verifier, *words, backend=None, **options):
    backend = backend or Rewards()
    run = Runtime({"m": backend}).run(
        verifier([state(each) for each in words], seed=0), answer=lambda value: None, **options
    )
    return run.state


def number(state: State) -> str | None:
    return state.text if state.text.isdigit() else None


def test_exact_tells_right_wrong_and_unparsed_apart():
    found = ask(Exact("42", number), "42", "41", "no idea")
    assert [(v.value, v.status) for v in found] == [(1.0, "ok"), (0.0, "ok"), (0.0, "unparsed")]
    assert Exact("42", number).oracle
    assert ask(Exact("42", number, equal=lambda a, b: int(a) == int(b)), "042")[0].value == 1.0


def test_votes_are_shares_of_those_who_have_an_answer():
    found = ask(Vote(number), "7", "4", "7", "?")
    assert [v.value for v in found] == pytest.approx([2 / 3, 1 / 3, 2 / 3, 0.0])
    assert found[3].status == "unparsed"
    weighty = ask(Vote(number, weight=lambda s: 5.0 if s.text == "4" else 1.0), "7", "4", "7")
    assert weighty[1].value == pytest.approx(5 / 7)
    assert ask(Vote(number, weight=lambda s: 0.0), "7")[0].value == 0.0
    assert ask(Vote(number)) == []


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_vote_of_no_weight_is_refused(weight):
    with pytest.raises(InvalidInput, match="finite"):
        ask(Vote(number, weight=lambda s: weight), "7")


@pytest.mark.parametrize(("aggregate", "expected"), [("last", 0.8), ("min", 0.5), ("product", 0.36), ("mean", 2.2 / 3)])
def test_aggregates_of_step_rewards(aggregate, expected):
    backend = Rewards({"a\nb\nc": (0.9, 0.5, 0.8)})
    assert ask(ProcessReward("m", aggregate), "a\nb\nc", backend=backend)[0].value == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -0.1, float("inf")])
def test_a_reward_that_is_no_probability_is_an_error_not_a_score(wrong):
    backend = Rewards({"a": (0.9, wrong), "b": (0.5,)})
    first, second = ask(ProcessReward("m"), "a", "b", backend=backend)
    assert (first.status, second.status) == ("error", "ok") and "no probability" in first.note


def test_equal_texts_are_scored_once():
    backend = Rewards({"a": (0.9,), "b": (0.5,)})
    found = ask(ProcessReward("m"), "a", "b", "a", backend=backend)
    assert [v.value for v in found] == [0.9, 0.5, 0.9] and len(backend.served) == 2


def test_what_the_budget_refuses_is_an_error_and_if_it_is_all_it_is_raised():
    table = {"a": (0.9,), "b": (0.5,)}
    first, second = ask(ProcessReward("m"), "a", "b", backend=Rewards(table), budget="2 tokens")
    assert (first.value, second.status) == (0.9, "error")
    run = Runtime({"m": Rewards(table)}).run(
        ProcessReward("m")([state("a")], seed=0), budget="1 token", answer=lambda value: None
    )
    assert run.stopped == "budget"


def test_an_unknown_aggregate_names_the_closest():
    with pytest.raises(InvalidInput, match="Did you mean 'product'"):
        ProcessReward("m", "prodct")


def test_the_price_of_a_score_is_prompt_and_text():
    async def price():
        return await ProcessReward("m").price(Prefix("12345"), 10, steps=3)

    cost = Runtime({"m": Rewards()}).run(price(), answer=lambda value: None).state
    assert (cost.total("prompt"), cost.total("calls"), cost.total("scores")) == (15, 3, 2)


@pytest.mark.parametrize(
    ("a", "b", "probability", "expected"),
    [
        (Verdict(0.9), Verdict(0.3), True, 0.75),
        (Verdict(0.0), Verdict(0.0), True, 0.5),
        (Verdict(2.0), Verdict(2.0), False, 0.5),
        (Verdict(-800.0), Verdict(800.0), False, 0.0),
        (Verdict(0.1), Verdict(0.9, "error"), True, 1.0),
        (Verdict(0.9, "unparsed"), Verdict(0.1), True, 0.0),
        (Verdict(0.9, "error"), Verdict(0.1, "error"), True, 0.5),
    ],
)
def test_preferences_by_values(a, b, probability, expected):
    assert preferred(a, b, probability=probability) == pytest.approx(expected)
    assert preferred(b, a, probability=probability) == pytest.approx(1 - expected)


def compare(preference, a, b, backend):
    return Runtime({"m": backend}).run(preference(state(a), state(b), seed=0), answer=lambda value: None).state


def test_a_verifier_is_a_preference():
    backend = Rewards({"a": (0.9,), "b": (0.3,)})
    assert compare(FromVerifier(ProcessReward("m")), "a", "b", backend) == pytest.approx(0.75)


def test_asking_in_both_orders_takes_out_a_judge_who_favours_a_place():
    def judge(say):
        ask_ = Judge("m", lambda a, b: f"{a.text} or {b.text}?", lambda reply: reply if reply in "AB" else None)
        return compare(ask_, "good", "bad", Rewards(say=say)), compare(
            BothOrders(ask_), "good", "bad", Rewards(say=say)
        )

    assert judge(lambda prompt: "A") == (1.0, 0.5)
    assert judge(lambda prompt: "A" if prompt.startswith("good") else "B") == (1.0, 1.0)
    assert judge(lambda prompt: "hmm") == (0.5, 0.5)
