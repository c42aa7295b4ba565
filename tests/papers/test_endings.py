"""A prompt ends as the policy expects it, whatever a shell did to it."""

from outthink.papers.solver import Models


def test_an_ending_is_added_only_where_it_is_missing() -> None:
    models = Models("m", ending="\n")

    assert models.asked("How many?") == models.asked("How many?\n") == "How many?\n"
    assert Models("m").asked("How many?") == "How many?"


def test_all_spaces_ask_with_the_ending() -> None:
    models = Models("m", ending="\n")

    assert {models.whole("Q").prompt, models.whole("Q", greedy=True).prompt, models.steps("Q").prompt} == {"Q\n"}
