"""The pure parts: usage to cost, endings, bounds of prompts, Retry-After, documents of servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.models.openai import Abilities
from outthink.models.openai.count import JOINT, PromptCounter, tokenizer_counter
from outthink.models.openai.ending import cut_logprobs, ending, first_stop
from outthink.models.openai.failures import Broken, Patience, Place, refused, retry_after
from outthink.models.openai.usage import seen, served
from outthink.models.openai.wire import Piece, piece

BOUND = Cost.of("m", calls=1, prompt=100, output=50)


@pytest.mark.parametrize(
    ("usage", "units", "exact"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, {"prompt": 9, "output": 4}, True),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 20}, {"prompt": 9, "output": 11}, True),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 1}, {"prompt": 9, "output": 4}, True),
        ({"prompt_tokens": 900, "completion_tokens": 400}, {"prompt": 900, "output": 400}, True),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}},
            {"prompt": 9, "output": 4, "cached": 8},
            True,
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 80}},
            {"prompt": 9, "output": 4, "cached": 9},
            True,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, {"prompt": 9, "output": 4}, True),
        (None, {"prompt": 100, "output": 50}, False),
        ("lots", {"prompt": 100, "output": 50}, False),
        ({}, {"prompt": 100, "output": 50}, False),
        ({"prompt_tokens": 9}, {"prompt": 9, "output": 50}, False),
        ({"prompt_tokens": -9, "completion_tokens": 4}, {"prompt": 100, "output": 4}, False),
        ({"prompt_tokens": 0, "completion_tokens": 0}, {"prompt": 100, "output": 50}, False),
        ({"prompt_tokens": True, "completion_tokens": 4.5}, {"prompt": 100, "output": 50}, False),
        ({"prompt_tokens": "9", "completion_tokens": None}, {"prompt": 100, "output": 50}, False),
    ],
)
def test_usage_is_believed_unless_it_cannot_be(usage, units, exact):
    cost, said = served(usage, model="m", bound=BOUND, text="abc")
    assert cost == Cost.of("m", calls=1, **units)
    assert said is exact


def test_no_output_is_believed_where_there_is_no_text():
    assert served({"prompt_tokens": 9, "completion_tokens": 0}, model="m", bound=BOUND, text="")[1]


def test_an_answer_left_in_the_middle_is_paid_at_its_bound_unless_the_server_is_known_to_stop():
    assert seen("abc", None, model="m", bound=BOUND, grace=None) == BOUND
    assert seen("abc", None, model="m", bound=BOUND, grace=2) == Cost.of("m", calls=1, prompt=100, output=5)
    assert seen("é" * 90, None, model="m", bound=BOUND, grace=2) == BOUND
    counted = {"prompt_tokens": 9, "completion_tokens": 2}
    assert seen("abcdef", counted, model="m", bound=BOUND, grace=1) == Cost.of("m", calls=1, prompt=9, output=3)


@pytest.mark.parametrize(
    ("text", "reason", "named", "names", "stop", "kind", "want"),
    [
        # the stop string stands in the text: kept, or ignored by the server
        ("a\n", "stop", None, False, ("\n",), "keep", ("a\n", "stop", "\n", False)),
        ("a\nb\nc", "length", None, False, ("\n",), "ignore", ("a\n", "stop", "\n", True)),
        ("a\nb", "stop", None, False, ("b", "\n"), None, ("a\n", "stop", "\n", True)),
        # stripped and named
        ("a", "stop", "\n", True, ("\n",), "strip", ("a\n", "stop", "\n", False)),
        ("a", "stop", "END", True, ("\n", "END"), None, ("aEND", "stop", "END", False)),
        ("a", "stop", None, True, ("\n",), "strip", ("a", "end", None, False)),
        ("", "stop", "\n", True, ("\n",), None, ("\n", "stop", "\n", False)),
        # stripped and not named: taken for the first stop string, an empty answer for the end
        ("a", "stop", None, False, ("\n", "END"), "strip", ("a\n", "stop", "\n", False)),
        ("a", "stop", None, False, ("\n",), None, ("a\n", "stop", "\n", False)),
        ("", "stop", None, False, ("\n",), "strip", ("", "end", None, False)),
        # a server that keeps or ignores stop strings cannot have cut one off
        ("a", "stop", None, False, ("\n",), "keep", ("a", "end", None, False)),
        ("a", "stop", None, False, ("\n",), "ignore", ("a", "end", None, False)),
        # nothing to do with stop strings
        ("a", "stop", None, False, (), "strip", ("a", "end", None, False)),
        ("a", "length", None, False, ("\n",), "strip", ("a", "length", None, False)),
        ("a", None, None, False, ("\n",), "strip", ("a", "end", None, False)),
    ],
)
def test_how_an_answer_ended(text, reason, named, names, stop, kind, want):
    got = ending(text, reason=reason, named=named, names_stop=names, stop=stop, can=Abilities(stop=kind))
    assert (got.text, got.finish, got.stop, got.cut) == want


def test_of_two_stop_strings_the_one_that_ends_first_counts_and_of_equals_the_longer():
    assert first_stop("xx END", ["END", "x"]) == (1, "x")
    assert first_stop("a\n\nb", ["\n\n", "\n"]) == (2, "\n")
    assert first_stop("abc", ["c", "bc"]) == (3, "bc")
    assert first_stop("abc", ["", "d"]) is None


@given(st.lists(st.text(min_size=1, max_size=4), max_size=8), st.integers(0, 40))
def test_logprobs_cover_exactly_the_text_that_is_left(tokens, length):
    text = "".join(tokens)[:length]
    kept = cut_logprobs([(token, -float(i)) for i, token in enumerate(tokens)], len(text))
    assert len("".join(tokens[: len(kept)])) >= len(text)
    assert not kept or len("".join(tokens[: len(kept) - 1])) < len(text)


class TestPromptCounter:
    def test_bytes_bound_a_prompt_that_was_never_seen(self):
        assert PromptCounter(overhead=7).bound(Prefix("añb")) == 4 + 7

    def test_a_text_that_normalisation_makes_longer_is_bound_by_the_longer_form(self):
        ligature = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}"  # 3 bytes, 33 in NFKC
        assert PromptCounter(overhead=0).bound(Prefix(ligature)) == 33

    def test_what_the_server_counted_replaces_the_estimate(self):
        counter, prompt = PromptCounter(overhead=7), Prefix("a long prompt")
        counter.learn(prompt, 5)
        assert counter.bound(Prefix("a long prompt")) == 5
        assert counter.bound(prompt.extend("four")) == 5 + 4 + JOINT

    def test_a_tokenizer_counts_and_the_overhead_is_learnt(self):
        counter = PromptCounter(overhead=2, tokenizer=lambda text: len(text.split()))
        assert counter.bound(Prefix("three words here")) == 5
        counter.learn(Prefix("three words here"), 13)
        assert counter.bound(Prefix("two words")) == 12
        assert counter.bound(Prefix("three words here")) == 13
        assert counter.bound(Prefix("three words here").extend(" and some more")) == 6 + 10

    def test_memory_is_limited(self, monkeypatch):
        monkeypatch.setattr("outthink.models.openai.count.REMEMBER", 3)
        counter = PromptCounter(overhead=0)
        for i in range(10):
            counter.learn(Prefix(str(i)), 1)
        assert len(counter._served) == 3
        assert counter.bound(Prefix("9")) == 1

    def test_a_file_that_is_no_tokenizer_is_named(self, tmp_path):
        with pytest.raises(InvalidInput, match="no such file"):
            tokenizer_counter(tmp_path / "tokenizer.json")
        (tmp_path / "bad.json").write_text("{}")
        with pytest.raises(InvalidInput, match=r"bad\.json: not a tokenizer"):
            tokenizer_counter(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after({"Retry-After": value}, now=1000.0) == seconds


def test_waits_double_with_each_failure_but_once_for_those_that_came_together():
    patience, broken = Patience(), Broken("x", retry=True, spent=False)
    waits = [patience.failed(broken, clock=clock).after for clock in (0.0, 0.1, 0.6, 1.7, 1.8, 500.0)]
    assert waits == [0.5, 0.5, 1.0, 2.0, 2.0, 4.0]
    assert patience.until == 504.0
    patience.worked()
    assert patience.failed(broken, clock=501.0).after == 0.5
    assert Patience().failed(Broken("x", retry=True, after=9.0), clock=0.0).after == 9.0


@pytest.mark.parametrize(
    ("status", "retry", "spent", "words"),
    [
        (400, False, False, "does not accept"),
        (401, False, False, "OPENAI_API_KEY"),
        (403, False, False, "may not use this model"),
        (404, False, False, "It has: a, b"),
        (408, True, False, "does not accept"),
        (422, False, False, "does not accept"),
        (429, True, False, "too many requests"),
        (500, True, True, "the server failed"),
        (501, False, False, "the server failed"),
        (502, True, True, "the server failed"),
        (503, True, False, "may still be loading"),
        (308, False, False, "redirects to https://x/v1"),
    ],
)
def test_every_status_has_its_sentence_and_its_consequence(status, retry, spent, words):
    broken = refused(
        status,
        '{"error": {"message": "because\\n of sk-secret"}}',
        headers={"Location": "https://x/v1"},
        place=Place("http://h/v1", "m", "sk-secret"),
        now=0.0,
        models=("a", "b"),
    )
    assert (broken.retry, broken.spent) == (retry, spent)
    assert words in broken.message and "because of ***" in broken.message
    assert "sk-secret" not in broken.message and "\n" not in broken.message


@pytest.mark.parametrize(
    "data",
    [
        [],
        "x",
        3,
        None,
        {"choices": {"0": 1}},
        {"choices": ["x"]},
        {"choices": [{"text": 3}]},
        {"choices": [{"text": [""]}]},
    ],
)
def test_documents_that_are_no_answer_are_refused(data):
    with pytest.raises(ValueError, match=r"expected|no JSON object"):
        piece(data)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        ({"choices": []}, Piece()),
        ({"usage": {"prompt_tokens": 1}}, Piece(usage={"prompt_tokens": 1})),
        ({"choices": [{"delta": {}}]}, Piece(choices=True)),
        ({"choices": [{"delta": {"content": None, "reasoning_content": "hm"}}]}, Piece(choices=True)),
        ({"choices": [{"text": "a", "matched_stop": 7}]}, Piece("a", names_stop=True, choices=True)),
        ({"error": {"message": "out of memory"}}, Piece(error="out of memory")),
        ({"error": "out of memory"}, Piece(error="out of memory")),
        (
            {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [None]}}]},
            Piece("a", choices=True),
        ),
    ],
)
def test_what_documents_say(data, want):
    assert piece(data) == want
