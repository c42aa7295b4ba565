"""Voting and choosing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.errors import InvalidInput
from outthink.methods.vote import Leaf, best, choice_named, majority, weighted, winner


def leaves(*rows):
    return [Leaf(f"state {i}", *row) for i, row in enumerate(rows)]


def test_the_commonest_answer_wins_and_its_value_is_its_votes():
    choice = majority(leaves(("7",), ("4",), ("7",)), seed=0)
    assert (choice.answer, choice.value) == ("7", 2)


@pytest.mark.parametrize("choose", [majority, weighted, best])
def test_abstentions_never_win_against_an_answer(choose):
    choice = choose(leaves((None, 0.99), (None, 0.99), (None, 0.99), ("4", 0.01)), seed=0)
    assert choice.answer == "4"


@pytest.mark.parametrize("choose", [majority, weighted, best])
def test_of_abstentions_one_is_returned_without_a_value_and_of_nothing_nothing(choose):
    choice = choose(leaves((None, 0.2), (None, 0.9)), seed=0)
    assert (choice.state, choice.answer, choice.value) == ("state 1", None, None)
    assert choose([], seed=0) is None


def test_weights_add_up_and_the_best_leaf_stands_for_its_answer():
    choice = weighted(leaves(("7", 0.4), ("4", 0.7), ("7", 0.5)), seed=0)
    assert (choice.answer, choice.state) == ("7", "state 2") and choice.value == pytest.approx(0.9)
    assert best(leaves(("7", 0.4), ("4", 0.7), ("7", 0.5)), seed=0).answer == "4"


def test_leaves_without_a_score_do_not_weigh_unless_none_has_one():
    assert weighted(leaves(("7",), ("7",), ("4", 0.1)), seed=0).answer == "4"
    choice = best(leaves(("7",), ("7",), ("4",)), seed=0)
    assert (choice.answer, choice.value) == ("7", None)  # votes are no rewards


def test_a_head_start_decides_ties_only():
    rows = [Leaf("greedy", "1", votes=1.5), Leaf("a", "2"), Leaf("b", "3")]
    assert majority(rows, seed=3).answer == "1"
    assert majority([*rows, Leaf("c", "2")], seed=3).answer == "2"


rated = st.tuples(st.sampled_from("abc"), st.floats(0, 1))


@given(st.lists(rated, min_size=1, max_size=12), st.randoms(), st.integers())
def test_order_does_not_matter(rows, random, seed):
    one = leaves(*rows)
    other = list(one)
    random.shuffle(other)
    for choose in (majority, weighted, best):
        assert choose(one, seed=seed) == choose(other, seed=seed)


def test_ties_fall_either_way_with_the_seed():
    winners = {winner({"a": 2, "b": 2}, seed=seed) for seed in range(20)}
    assert winners == {"a", "b"}


def test_an_unknown_choice_names_the_closest():
    with pytest.raises(InvalidInput, match="Did you mean 'weighted'"):
        choice_named("weigted")
