from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.tasks import countdown as task
from outthink.tasks.word_splits import SPLITS

SOME = task.problems("heldout", limit=24)


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.id)
def test_every_problem_has_a_solution_that_is_accepted(problem):
    assert task.check(problem, task.solve(problem.numbers, problem.target))


def test_splits_share_no_multiset_of_numbers():
    dealt = [{tuple(sorted(p.numbers)) for p in task.problems(split, limit=60)} for split in SPLITS]
    assert not dealt[0] & dealt[1] and not dealt[0] & dealt[2] and not dealt[1] & dealt[2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("8-4-2", 2),
        ("8/4/2", 1),
        ("7/2", Fraction(7, 2)),
        (" 1 + 1 ", 2),
        ("1/0", None),
        ("2**3", None),
        ("-1", None),
        ("(1", None),
        ("1)", None),
        ("", None),
        ("1 2", None),
        ("1" * 99, None),
        ("__import__('os')", None),
        ("(" * 300, None),
        ("1,2", None),
        ("0x10", None),
        ("1e3", None),
    ],
)
def test_expressions_are_parsed_not_evaluated(text, value):
    assert task.value_of(text) == value


def test_a_number_is_used_at_most_as_often_as_given():
    problem = task.CountdownProblem("x", "", (5, 5, 2), 10, 1)
    assert task.check(problem, "5+5") and task.check(problem, "5*2")
    assert not task.check(problem, "5*2*5/5*2/2")
    assert not task.check(problem, "10")


def test_unsolvable_targets_are_known():
    assert task.solve((1, 1), 99) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("try 3*4\n(1+2)*3 = 9\n", "(1+2)*3"),
        ("# 1 + 2\n", "1+2"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_expression(text, answer):
    assert task.answer_of(text) == answer
    assert task.answer_of(text) is not None or not task.grade(SOME[0], task.answer_of(text))


def _trees():
    return st.recursive(
        st.integers(1, 25).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        max_leaves=6,
    )


@settings(max_examples=80, deadline=None)
@given(_trees())
def test_values_agree_with_exact_arithmetic(text):
    try:
        expected = _exact(text)
    except ZeroDivisionError:
        expected = None
    assert task.value_of(text) == expected


def _exact(text):
    """The reference: the outermost pair of a fully parenthesised expression, split where the nesting is zero."""
    if text.isdigit():
        return Fraction(int(text))
    depth, inner = 0, text[1:-1]
    for at, char in enumerate(inner):
        depth += (char == "(") - (char == ")")
        if depth == 0 and char in "+-*/":
            left, right = _exact(inner[:at]), _exact(inner[at + 1 :])
            return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[char](right)
    raise AssertionError(text)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=120))
def test_any_text_is_judged_without_an_error(text):
    task.check(SOME[0], text)
    task.answer_of(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: task.generate("all", 1, count=1, seed=0), "split is 'all'"),
        (lambda: task.generate("train", 5, count=1, seed=0), "level is 5; it must be one of 1 to 4"),
        (lambda: task.problems(limit=-2), "limit is -2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
