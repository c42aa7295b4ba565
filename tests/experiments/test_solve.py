"""ot.solve: the answer, every token, and errors before anything is spent."""

import asyncio
import json

import pytest

import outthink as ot
from outthink.core.backend import Failure, Settled
from outthink.core.cost import Cost
from outthink.experiments.setting import Setting
from outthink.models.toy import toy_backend, toy_problems

PROMPT = toy_problems(3)[1].prompt
TOY = "toy/t1"


@pytest.mark.parametrize("method", ["greedy", "majority", "best_of_n", "rebase"])
def test_the_budget_holds_and_every_token_has_a_place(method):
    result = ot.solve(PROMPT, method=method, model=TOY, budget="600 tokens", seed=4)
    data = result.to_dict()
    total = data["cost"]["total"]
    assert result.answer is not None and result.answer in result.text
    assert total["tokens"] == total["prompt_tokens"] + total["output_tokens"] == result.cost.tokens <= 600
    assert 0 <= total["discarded_tokens"] < total["output_tokens"]
    roles = data["cost"]["by_role"].values()
    assert sum(role.get("output_tokens", 0) for role in roles) == total["output_tokens"]
    assert sum(role.get("calls", 0) for role in roles) == total["calls"]
    assert list(data)[:9] == ["answer", "text", "value", "stopped", "cost", "seconds", "seed", "method", "model"]


def test_the_same_seed_gives_the_same_result_and_another_another():
    first, again, other = (ot.solve(PROMPT, model=TOY, method="majority", budget="900", seed=s) for s in (1, 1, 2))
    assert (first.answer, first.text, first.cost) == (again.answer, again.text, again.cost)
    assert [e.reply.text for e in other.run.trace.served()] != [e.reply.text for e in first.run.trace.served()]


def test_awaiting_gives_the_same_and_solve_works_inside_a_running_loop():
    async def inside():
        awaited = await ot.asolve(PROMPT, model=TOY, budget="600", method="majority")
        blocking = ot.solve(PROMPT, model=TOY, budget="600", method="majority")
        return awaited, blocking

    awaited, blocking = asyncio.run(inside())
    assert (awaited.answer, awaited.cost) == (blocking.answer, blocking.cost)


def test_without_a_method_there_is_a_default_for_every_model():
    assert ot.solve(PROMPT, model=TOY, budget="300").method == "rebase"
    with Setting(TOY, None, {TOY: toy_backend(TOY)}, {}) as setting:
        assert ot.solve(PROMPT, model=setting, budget="300").method == "majority"


def test_an_open_setting_is_used_again():
    with ot.open_setting(TOY, max_tokens=40) as setting:
        first, second = (ot.solve(PROMPT, model=setting, budget="300", method="greedy") for _ in range(2))
        assert first.cost == second.cost and first.cost.total("output") <= 40
        with pytest.raises(ot.InvalidInput, match="open already"):
            ot.solve(PROMPT, model=setting, temperature=0.3)


def test_a_function_is_a_verifier():
    def likes_short(prompt, text):
        return 1 / (1 + len(text))

    result = ot.solve(PROMPT, model=TOY, method="best_of_n", verifier=likes_short, budget="900")
    assert result.cost.counts["function/likes_short"]["scores"] > 1
    drafts = [e.reply.text for e in result.run.trace.served() if hasattr(e.reply, "text")]
    assert len(result.text) == min(map(len, drafts))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"prompt": " "}, ot.InvalidInput, "the prompt is empty"),
        ({"method": "rebasee"}, ot.InvalidInput, "Did you mean 'rebase'"),
        ({"model": "toy/t2"}, ot.InvalidInput, "toy/t1"),
        ({"model": "gpt"}, ot.InvalidInput, "openai/NAME"),
        ({"budget": "2k tokns"}, ot.InvalidInput, "Did you mean 'tokens'"),
        ({"budget": "$0.01"}, ot.InvalidInput, "price"),
        ({"max_tokens": 9, "tempo": 3}, ot.InvalidInput, "unknown setting tempo"),
        ({"knobs": {"widht": 3}, "method": "beam"}, ot.InvalidInput, "widht"),
    ],
)
def test_mistakes_are_errors_before_anything_is_spent(arguments, error, says, monkeypatch):
    from outthink.models import toy

    if "budget" in arguments and "$" in arguments["budget"]:
        monkeypatch.setattr(toy, "CARD", ot.Card())
    monkeypatch.setattr(toy.Toy, "submit", lambda *_: pytest.fail("something was spent"))
    given = {"prompt": PROMPT, "model": TOY, **arguments}
    with pytest.raises(error, match=says):
        ot.solve(given.pop("prompt"), **given)


def test_a_budget_that_cannot_pay_for_one_sample_says_how_much_one_needs():
    need = len(PROMPT) + 1
    with pytest.raises(ot.InvalidInput, match=rf"cannot pay for one sample of toy/t1: .* at least {need} tokens, and"):
        ot.solve(PROMPT, model=TOY, method="greedy", budget=need - 1)
    assert ot.solve(PROMPT, model=TOY, method="greedy", budget=need).cost.tokens == need


def test_a_method_that_needs_a_verifier_says_so_and_spends_nothing():
    with Setting(TOY, None, {TOY: toy_backend(TOY)}, {}) as setting:
        with pytest.raises(ot.Unsupported, match=r"needs a verifier .* --verifier NAME"):
            ot.solve(PROMPT, model=setting, method="rebase")


class Broken:
    """A backend that fails every request for good."""

    stepped = True
    capabilities = frozenset({"sample", "stop", "prefix"})

    def __init__(self):
        self.waiting = []

    def bound(self, ticket, request):
        return Cost.of("broken", calls=1, prompt=1, output=5)

    def room(self):
        return 9

    def submit(self, ticket, request):
        self.waiting.append(ticket)

    def cancel(self, ticket):
        pass

    def step(self):
        out, self.waiting = [Settled(t, None, Cost(), Failure("the disk is on fire")) for t in self.waiting], []
        return out

    def attach(self, post):
        pass

    def close(self):
        self.waiting.clear()


@pytest.mark.parametrize("method", ["greedy", "majority"])
def test_a_model_that_only_fails_is_an_error_with_its_message(method):
    with Setting("broken", None, {"broken": Broken()}, {}) as setting:
        with pytest.raises(ot.BackendError, match="the disk is on fire"):
            ot.solve("x", model=setting, method=method, budget="100")


def test_ctrl_c_gives_the_best_so_far():
    import os
    import signal

    seen = []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 40:
            os.kill(os.getpid(), signal.SIGINT)

    result = ot.solve(PROMPT, model=TOY, method="majority", budget="20k", watch=interrupt)
    assert result.stopped == "cancelled" and result.answer is not None
    assert result.cost.tokens < 20_000
    assert result.run.cost == result.run.trace.cost


def test_results_show_themselves():
    result = ot.solve(PROMPT, model=TOY, budget="2k", method="rebase")
    page = result._repr_html_()
    assert "thrown away" in page and "search tree" in page and f"<b>{result.answer}</b>" in page
    assert repr(result).startswith("Result(answer=")
    json.loads(result.to_json())
