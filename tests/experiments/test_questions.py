"""Tasks by name or file; every bad file is one sentence with file and line."""

import json

import pytest

from outthink.core.errors import InvalidInput
from outthink.experiments.answers import canonical, final_answer
from outthink.experiments.questions import load, read_jsonl


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n", "utf-8")
    return path


def test_built_in_tasks_are_graded_by_their_own_grader():
    questions = load("word_problems", limit=5)
    assert [item.problem.id for item in questions.items][:2] == ["heldout/1/0", "heldout/2/0"]
    first = questions.items[0]
    assert questions.grade(first.reference, first.reference.answer)
    assert not questions.grade(first.reference, None)


def test_a_problem_never_carries_its_answer():
    for item in load("word_problems", limit=3).items:
        assert not item.problem.data


def test_the_digest_changes_with_any_prompt_answer_or_order(tmp_path):
    rows = [{"id": 1, "prompt": "a", "answer": "1"}, {"id": 2, "prompt": "b", "answer": "2"}]
    base = read_jsonl(write(tmp_path / "a.jsonl", *rows)).digest
    assert read_jsonl(write(tmp_path / "b.jsonl", *rows)).digest == base
    assert read_jsonl(write(tmp_path / "c.jsonl", rows[1], rows[0])).digest != base
    assert read_jsonl(write(tmp_path / "d.jsonl", rows[0], {**rows[1], "answer": "3"})).digest != base


def test_an_unknown_task_names_the_closest():
    with pytest.raises(InvalidInput, match="Did you mean 'word_problems'"):
        load("word_problem")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": 2, "prompt": ', r":2: not JSON"),
        ("[1]", r":2: a list"),
        ({"id": "b", "prompt": "x"}, r":2: 'answer' missing"),
        ({"prompt": "x", "answer": "1"}, r":2: 'id' missing"),
        ({"id": "b", "prompt": "  ", "answer": "1"}, r":2: the prompt is empty"),
        ({"id": "b", "prompt": 3, "answer": "1"}, r":2: the prompt is empty"),
        ({"id": "b", "prompt": "x", "answer": [1]}, r":2: the answer is a list"),
        ({"id": "a", "prompt": "x", "answer": "1"}, r":2: id 'a' was used on line 1"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path, line, says):
    path = write(tmp_path / "t.jsonl", {"id": "a", "prompt": "p", "answer": 1}, line)
    with pytest.raises(InvalidInput, match=r"t\.jsonl" + says):
        read_jsonl(path)


def test_a_bad_line_beyond_the_limit_is_found_before_anything_is_spent(tmp_path):
    path = write(tmp_path / "t.jsonl", {"id": "a", "prompt": "p", "answer": 1}, "oops")
    with pytest.raises(InvalidInput, match=":2"):
        read_jsonl(path, limit=1)


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load(str(tmp_path / "no.jsonl"))
    with pytest.raises(InvalidInput, match="no problems"):
        read_jsonl(write(tmp_path / "empty.jsonl", ""))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(InvalidInput, match="at least 1"):
        load("word_problems", limit=0)


def test_a_file_of_windows_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "w.jsonl").write_bytes(b'\xef\xbb\xbf{"id": 7, "prompt": "p", "answer": 3.50}\r\n\r\n')
    questions = read_jsonl(tmp_path / "w.jsonl")
    assert questions.items[0].problem.id == "7"
    assert questions.grade(questions.items[0].reference, "7/2")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[1] 3+4=7\n# 7\n", "7"),
        (r"so \boxed{3} or rather \boxed{\frac{6}{4}}", "3/2"),
        ("First 12. The final answer is **1,200.50**.", "2401/2"),
        ("The answer is Paris.", "paris"),
        ("we get 4 and then 5", "5"),
        ("#### 18", "18"),
        ("I do not know", None),
        ("", None),
    ],
)
def test_the_final_answer_of_free_text(text, answer):
    assert final_answer(text) == answer


def test_equal_answers_have_one_form_and_a_percent_is_not_a_number():
    assert canonical(" 0.50 ") == canonical("1/2") == canonical("$.5") == "1/2"
    assert canonical("50%") != canonical("50")
    assert canonical("1/0") == "1/0"
