import re
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.tasks import word_problems as task
from outthink.tasks.word_splits import FRAMES, IDLE, ITEMS, MEN, SPLITS, WOMEN, names, pair_split, sequence_split, words
from outthink.tasks.word_story import LEVELS, Noise, tell

SOME = [problem for split in SPLITS for problem in task.problems(split, limit=40, seed=3)]


def test_problems_interleave_the_levels_and_are_unique():
    found = task.problems("heldout", limit=20)
    assert [problem.level for problem in found] == [1, 2, 3, 4, 5, 6, 7, 8] * 2 + [1, 2, 3, 4]
    assert found[17].id == "heldout/2/2"
    assert len({problem.id for problem in found}) == 20


def test_a_longer_list_begins_with_the_shorter_one():
    assert task.generate("train", 5, count=9, seed=4)[:3] == task.generate("train", 5, count=3, seed=4)
    assert task.problems("validation", limit=16)[:8] == task.problems("validation", limit=8)


def test_seeds_give_other_problems_with_other_ids():
    first, second = (task.generate("heldout", 6, count=4, seed=seed) for seed in (0, 1))
    assert not {p.prompt for p in first} & {p.prompt for p in second}
    assert not {p.id for p in first} & {p.id for p in second}


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.id)
def test_the_true_solution_is_right_in_every_line(problem):
    text = task.solution(problem)
    assert task.check_steps(problem, text) == [True] * (problem.level + 1)
    assert task.grade(problem, task.answer_of(text))
    assert all(task.arithmetic_holds(step) for step in problem.steps)


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.id)
def test_numbers_stay_below_100_and_the_prompt_ends_its_line(problem):
    assert all(int(n) <= 99 for n in re.findall(r"\d+", problem.prompt + " ".join(problem.steps)))
    assert problem.prompt.endswith("have now?\n")


def test_splits_share_no_name_and_train_holds_both_halves_of_every_name():
    dealt = [set(names(split)) for split in SPLITS]
    assert sum(map(len, dealt)) == len(WOMEN) + len(MEN) == len({*WOMEN, *MEN})
    assert {name[0] for name in WOMEN + MEN} == {name[0] for name in names("train")}
    assert {name[1:] for name in WOMEN + MEN} == {name[1:] for name in names("train")}


@pytest.mark.parametrize("problem", SOME, ids=lambda problem: problem.id)
def test_a_pronoun_means_the_one_who_is_asked_about(problem):
    who = re.search(r"does (\w+) have", problem.prompt)[1]
    others = set(re.findall(r"\b[A-Z][a-z]+\b", problem.prompt)) - {who, "How", "He", "She"}
    assert problem.prompt.startswith(f"[1] {who} ")
    assert not (others & set(WOMEN if who in WOMEN else MEN))
    assert ("She" if who in MEN else "He") not in re.findall(r"\w+", problem.prompt)


def test_splits_share_no_frame_with_item_and_train_holds_every_word():
    for kind, (_, _, choices) in FRAMES.items():
        for item in ITEMS:
            dealt = [set(words(split, kind, item)) for split in SPLITS]
            assert all(dealt) and sum(map(len, dealt)) == len(set.union(*dealt)) == len(choices)
        assert set(choices) == {word for item in ITEMS for word in words("train", kind, item)}


@pytest.mark.parametrize("split", SPLITS)
def test_problems_use_only_the_number_pairs_and_names_of_their_split(split):
    for problem in task.problems(split, limit=80, seed=1):
        for step in problem.steps:
            x, sign, a = re.match(r"\[\d+\] (\d+)(.)(\d+)=", step).groups()
            assert sign in "*/" or pair_split(int(x), int(a)) == split
        people = set(re.findall(r"\b[A-Z][a-z]+\b", problem.prompt)) - {"How", "He", "She"}
        assert people <= set(names(split))


def test_sequences_of_three_operations_belong_to_one_split_and_shorter_ones_to_all():
    assert sequence_split(("gain", "idle", "lose")) is None
    kinds = [kind for kind in FRAMES if kind not in ("start", *IDLE)]
    assert {sequence_split((a, b, c)) for a in kinds for b in kinds for c in kinds} == set(SPLITS)


def test_lessons_of_the_careless_teacher_use_only_training_pairs():
    """Otherwise a wrong running total would show the model sums that the held-out problems ask."""
    for level in (3, 8):
        for _, solution in islice(task.lessons(level, noise=Noise(idle=0, operand=0, slip=0, skip=0), seed=2), 100):
            for x, _, a in re.findall(r"\] (\d+)([-+])(\d+)=", solution):
                assert pair_split(int(x), int(a)) == "train"


def test_the_role_mistake_is_likelier_than_the_truth():
    rng, wrong, seen = Random(0), 0, 0
    while seen < 300:
        story = tell(rng, 1, split="train", noise=Noise(op=0, idle=0, operand=0, slip=0, skip=0))
        if " from " in story.prompt and "-" in story.steps[0]:
            seen += 1
            wrong += story.written[0] != story.steps[0]
    assert 0.5 < wrong / seen < 0.7


def test_a_careful_teacher_writes_the_truth():
    rng = Random(1)
    for level in LEVELS:
        story = tell(rng, level, split="train")
        assert story.written == (*story.steps, f"# {story.answer}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[2] 1+1=2\n# 2\n", "2"),
        ("# 007\n", "7"),
        ("#7", "7"),
        ("# 0", "0"),
        ("", None),
        ("[2] 1+1=2\n", None),
        ("# seven", None),
        ("# 1234", None),
        ("# 7 or 8", None),
        ("# 7\n# 8\n", "7"),
        ("# \n# 8\n", None),
        ("# ٣", None),
    ],
)
def test_answers_are_canonical_or_none(text, answer):
    assert task.answer_of(text) == answer


def test_no_answer_is_never_right():
    assert not task.grade(SOME[0], None)


def test_after_the_first_wrong_line_all_are_wrong():
    problem = task.generate("validation", 3, count=1, seed=0)[0]
    first, _, third = problem.steps
    wrong = f"{first}\n[9] 1+1=2\n{third}\n# {problem.answer}\n"
    assert task.check_steps(problem, wrong) == [True, False, False, False]
    assert task.check_steps(problem, f"{first}\n# {problem.answer}") == [True, False]
    assert task.check_steps(problem, first.replace(" ", "")) == [True]
    assert task.check_steps(problem, task.solution(problem) + "# 1\n")[-1] is False
    assert task.check_steps(problem, "") == []


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("[4] 52-12=40", True),
        ("[4] 52-12=41", False),
        ("[2] 8/2=4", True),
        ("[2] 9/2=4", False),
        ("[2] 3*3=9", True),
        ("[2] 3/0=0", False),
        ("# 40", None),
        ("52-12=40", None),
    ],
)
def test_arithmetic_is_checked_without_the_problem(line, holds):
    assert task.arithmetic_holds(line) is holds


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.sampled_from(SOME))
def test_any_text_has_one_verdict_a_line(text, problem):
    verdicts = task.check_steps(problem, text)
    assert len(verdicts) == (len(text.removesuffix("\n").split("\n")) if text else 0)
    assert sorted(verdicts, reverse=True) == verdicts
    answer = task.answer_of(text)
    assert answer is None or answer == str(int(answer))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: task.generate("test", 1, count=1, seed=0), "split is 'test'; it must be one of train, validation"),
        (lambda: task.generate("train", 9, count=1, seed=0), "level is 9; it must be one of 1 to 8"),
        (lambda: task.generate("train", 1, count=-1, seed=0), "count is -1"),
        (lambda: task.problems(limit=-1), "limit is -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
