"""A Python function as a reward model."""

import pytest

from outthink.core.errors import BackendError, Unsupported
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.core.runtime import Runtime
from outthink.models.function import Function

PREFIX = Prefix("q").extend("a\nbb\n").extend("c")


def score(judge, **options):
    async def method():
        return await Score(PREFIX, "f", **options)

    return Runtime({"f": Function(judge, name="f")}).run(method())


def test_it_sees_prompt_and_text_and_costs_no_tokens():
    seen = []
    run = score(lambda prompt, text: seen.append((prompt, text)) or 0.25)
    assert (run.state.value, seen) == (0.25, [("q", "a\nbb\nc")])
    assert run.cost.nonzero() == {"f": {"calls": 1, "scores": 1}}


def test_every_step_is_judged_with_all_before_it():
    run = score(lambda _, text: len(text) / 10, step="\n")
    assert run.state.steps == (0.2, 0.5, 0.6) and run.state.value == 0.6


@pytest.mark.parametrize(
    ("judge", "says"), [(lambda p, t: 2.0, "no probability"), (lambda p, t: 1 / 0, "ZeroDivisionError")]
)
def test_a_judge_that_fails_is_named(judge, says):
    with pytest.raises(BackendError, match=says):
        score(judge)


def test_it_does_nothing_else():
    async def method():
        return await Sample(PREFIX, "f", 0, max_tokens=3)

    with pytest.raises(Unsupported, match="a Python function"):
        Runtime({"f": Function(lambda p, t: 0.0, name="f")}).run(method())
