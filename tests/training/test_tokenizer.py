from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.tasks.word_problems import problems, solution
from outthink.tasks.word_splits import MEN, WOMEN
from outthink.training.tokenizer import END, build_tokenizer

TOKENIZER = build_tokenizer()


def pieces(text):
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text).ids]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_comes_back_unchanged(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


def test_every_name_is_two_tokens_whether_training_saw_it_or_not():
    assert {len(TOKENIZER.encode(f" {name}").ids) for name in WOMEN + MEN} == {2}


def test_digits_and_citations_are_single_tokens():
    assert pieces("[12] 52-12=40\n") == ["[12]", " 5", "2", "-", "1", "2", "=", "4", "0", "\n"]


def test_the_end_is_token_zero():
    assert TOKENIZER.encode(END).ids == [0] == [TOKENIZER.token_to_id(END)]


def test_lines_are_encoded_alike_alone_and_together():
    """Searches append one line at a time; the model must see the tokens it was trained on."""
    for problem in problems("validation", limit=16):
        parts = [problem.prompt, *solution(problem).splitlines(keepends=True)]
        together = TOKENIZER.encode("".join(parts)).ids
        assert together == [token for part in parts for token in TOKENIZER.encode(part).ids]


def test_problems_are_short():
    asked = problems("heldout", limit=80)
    mean = sum(len(TOKENIZER.encode(problem.prompt).ids) for problem in asked) / len(asked)
    written = sum(len(TOKENIZER.encode(solution(problem)).ids) + 1 for problem in asked) / len(asked)
    assert mean <= 72 and written <= 50


def test_the_tokenizer_is_the_same_every_time():
    assert build_tokenizer().to_str() == TOKENIZER.to_str()
