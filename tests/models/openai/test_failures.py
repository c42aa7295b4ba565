"""Servers that are down, refuse, fail, are slow, cut answers, or talk nonsense."""

import json
import socket

import pytest

from outthink.core.cost import Cost
from outthink.models.openai import PRESETS, Timeouts

pytestmark = pytest.mark.loopback

PLAIN = PRESETS["plain"]
SAID = {"choices": [{"index": 0, "delta": {"content": " red"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("can", [PLAIN, None])
def test_a_server_that_is_down_costs_nothing_and_may_be_tried_again(client, sample, can):
    url = f"http://127.0.0.1:{free_port()}/v1"
    done = client(base_url=url, can=can).ask(sample())
    assert "Is the server running" in done.failure.message and url in done.failure.message
    assert done.failure.retry and done.failure.after > 0
    assert (done.reply, done.cost, done.exact) == (None, Cost(), True)


def test_while_a_server_is_down_its_capabilities_are_not_denied(client):
    one = client(base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert one.backend.capabilities >= {"sample", "logprobs", "continue"}
    assert one.backend.probed is None


def test_a_server_that_comes_up_later_is_used(server, client, sample):
    server.script = [server.reply(503, "loading", {"Retry-After": "0"})]
    one = client()
    first = one.ask(sample())
    assert first.failure.retry and "loading" in first.failure.message
    assert one.ask(sample()).failure is None


@pytest.mark.parametrize(
    ("status", "retry", "free", "words"),
    [
        (400, False, True, "does not accept"),
        (401, False, True, "key is not accepted"),
        (404, False, True, "no model 'm'"),
        (429, True, True, "too many requests"),
        (500, True, False, "the server failed"),
        (502, True, False, "the server failed"),
        (503, True, True, "not ready"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_status_is_one_paragraph_and_costs_what_it_may_have_cost(
    server, client, sample, status, retry, free, words, stream
):
    import dataclasses

    server.script = [server.reply(status, json.dumps({"error": {"message": "the reason"}}))]
    one = client(can=dataclasses.replace(PLAIN, stream=stream))
    slip = one.submit(sample())
    done = one.settled(slip)
    assert words in done.failure.message and "the reason" in done.failure.message and "\n" not in done.failure.message
    assert done.failure.retry is retry
    assert (done.cost, done.exact) == ((Cost(), True) if free else (slip.bound, False))
    assert len(server.asked) == 1, "the backend retries nothing"


def test_an_unknown_model_is_told_which_models_there_are(server, client, sample):
    server.script = [server.reply(404, "{}")] * 2
    server.models = {"data": [{"id": "llama"}, {"id": "qwen"}]}
    done = client(model="lama").ask(sample())
    assert "'lama'" in done.failure.message and "llama, qwen" in done.failure.message


def test_a_key_that_the_server_echoes_is_not_shown(server, client, sample):
    server.script = [server.reply(401, '{"error": "bad key sk-123456"}')]
    done = client(can=PLAIN, api_key="sk-123456").ask(sample())
    assert "sk-123456" not in done.failure.message and "***" in done.failure.message
    assert server.headers[-1]["Authorization"] == "Bearer sk-123456"


def test_without_a_key_none_is_sent(server, client, sample):
    client(can=PLAIN).ask(sample())
    assert "Authorization" not in server.headers[-1]


@pytest.mark.parametrize(
    ("header", "after"),
    [({"Retry-After": "0.02"}, 0.02), ({"Retry-After": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0), ({}, 0.5)],
)
def test_too_many_requests_says_when_to_come_again(server, client, sample, header, after):
    server.script = [server.reply(429, "{}", header)]
    one = client(can=PLAIN, now=lambda: 1000.0)
    assert one.ask(sample()).failure.after == pytest.approx(after)


def test_after_an_answer_waits_are_short_again(server, client, sample):
    clock = [0.0]
    one = client(can=PLAIN, clock=lambda: clock[0])
    waits = []
    for status in (503, 503, 200, 503):
        server.script = [server.reply(status, "")] if status != 200 else []
        done = one.ask(sample())
        waits.append(done.failure.after if done.failure else None)
        clock[0] += 100.0
    assert waits == [0.5, 1.0, None, 0.5]


def test_new_requests_wait_as_long_as_the_server_asked(server, client, sample):
    """Else each of them would burn one of its attempts on a server that is full."""
    import time

    server.script = [server.reply(429, "{}", {"Retry-After": "0.04"})]
    one = client(can=PLAIN)
    one.ask(sample())
    begun = time.monotonic()
    assert one.ask(sample()).failure is None
    assert time.monotonic() - begun >= 0.03


@pytest.mark.parametrize("events", [[], [SAID]])
def test_a_slow_server_is_left_after_the_time_given(server, client, sample, events):
    server.script = [server.stream(events, then="hang")]
    one = client(can=PLAIN, timeouts=Timeouts(connect=1.0, read=0.03))
    slip = one.submit(sample())
    done = one.settled(slip)
    assert "nothing came for 0.03 s" in done.failure.message and done.failure.retry
    assert (done.cost, done.exact) == (slip.bound, False)


def test_a_server_that_never_answers_is_left_too(server, client, sample):
    server.script = [server.hang()]
    done = client(can=PLAIN, timeouts=Timeouts(connect=1.0, read=9.0, total=0.03)).ask(sample())
    assert "no whole answer within 0.03 s" in done.failure.message and not done.exact


@pytest.mark.parametrize("then", ["cut", "end"])
@pytest.mark.parametrize("events", [[], [SAID], [SAID, b'data: {"choices": [{"del']])
def test_an_answer_that_is_cut_in_the_middle_is_paid_at_its_bound(server, client, sample, events, then):
    server.script = [server.stream(events, then=then)]
    one = client(can=PLAIN)
    slip = one.submit(sample())
    done = one.settled(slip)
    assert done.reply is None and (done.cost, done.exact) == (slip.bound, False)
    assert "cut" in done.failure.message or "broke" in done.failure.message or "not the JSON" in done.failure.message


def test_an_answer_that_ends_without_done_is_whole(server, client, sample):
    server.script = [server.stream([SAID, END, USAGE], then="end")]
    done = client(can=PLAIN).ask(sample())
    assert (done.reply.text, done.reply.finish, done.cost.tokens, done.exact) == (" red", "length", 8, True)


@pytest.mark.parametrize(("events", "exact"), [([SAID, END, USAGE], True), ([SAID, END], False)])
def test_an_answer_that_is_cut_after_its_end_is_an_answer(server, client, sample, events, exact):
    """Only the farewell is missing, and perhaps what it cost."""
    server.script = [server.stream(events, then="cut")]
    one = client(can=PLAIN)
    slip = one.submit(sample())
    done = one.settled(slip)
    assert (done.failure, done.reply.text, done.exact) == (None, " red", exact)
    assert done.cost.tokens == (8 if exact else slip.bound.tokens)


def test_missing_usage_is_charged_at_the_bound_and_marked(server, client, sample):
    server.script = [server.stream([SAID, END, b"data: [DONE]\n\n"], then="end")]
    one = client(can=PLAIN)
    slip = one.submit(sample())
    done = one.settled(slip)
    assert done.reply.text == " red"
    assert (done.cost, done.exact) == (slip.bound, False)


@pytest.mark.parametrize(
    ("usage", "tokens", "exact"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 9999}, 10006, True),
        ({"prompt_tokens": 9999, "completion_tokens": 1}, 10000, True),
        ({"prompt_tokens": 7, "completion_tokens": -1}, 7 + 8, False),
        ({"prompt_tokens": 7, "completion_tokens": 0}, 7 + 8, False),
        ({"prompt_tokens": 7, "completion_tokens": "1"}, 7 + 8, False),
    ],
)
def test_usage_above_the_bound_is_booked_and_impossible_usage_is_not(server, client, sample, usage, tokens, exact):
    server.script = [server.stream([SAID, END, {"choices": [], "usage": usage}], then="end")]
    done = client(can=PLAIN).ask(sample())
    assert (done.cost.tokens, done.exact) == (tokens, exact)


def test_an_answer_without_choices_is_a_failure_that_is_paid(server, client, sample):
    usage = {"prompt_tokens": 7, "completion_tokens": 1}
    server.script = [server.reply(200, json.dumps({"choices": [], "usage": usage}))]
    done = client(can=PLAIN).ask(sample())
    assert "without choices" in done.failure.message and done.failure.retry
    assert (done.cost.tokens, done.exact) == (8, True)


def test_a_withheld_answer_is_a_failure_that_is_paid(server, client, sample):
    end = {"choices": [{"delta": {}, "finish_reason": "content_filter"}]}
    server.script = [server.stream([SAID, end, USAGE], then="end")]
    done = client(can=PLAIN).ask(sample())
    assert "content filter" in done.failure.message and not done.failure.retry
    assert (done.cost.tokens, done.exact) == (8, True)


@pytest.mark.parametrize(
    "text", ["<html>Welcome to nginx!</html>", "", "null", "[1]", '"hello"', "[" * 100_000, '{"choices": "many"}']
)
def test_nonsense_is_no_answer_and_not_tried_again(server, client, sample, text):
    server.script = [server.reply(200, text)]
    done = client(can=PLAIN).ask(sample())
    assert "not the JSON of an answer" in done.failure.message and "/v1" in done.failure.message
    assert len(done.failure.message) < 600 and not done.failure.retry and not done.exact


@pytest.mark.parametrize("event", [b"data: {nonsense}\n\n", b'data: "text"\n\n'])
def test_nonsense_in_a_stream_is_no_answer(server, client, sample, event):
    server.script = [server.stream([SAID, event], then="hang")]
    done = client(can=PLAIN).ask(sample())
    assert "not the JSON of an answer" in done.failure.message and not done.exact


def test_an_event_without_end_is_no_answer(server, client, sample, monkeypatch):
    monkeypatch.setattr("outthink.models.openai.sse.LONGEST", 1000)
    server.script = [server.stream([b"data: " + b"x" * 2000], then="hang")]
    done = client(can=PLAIN).ask(sample())
    assert server.url in done.failure.message and "more than 1000 bytes" in done.failure.message and not done.exact


def test_an_error_in_a_stream_is_told(server, client, sample):
    server.script = [server.stream([SAID, {"error": {"message": "out of memory"}}], then="end")]
    done = client(can=PLAIN).ask(sample())
    assert "broke off: out of memory" in done.failure.message and done.failure.retry and not done.exact


def test_a_redirect_names_the_address_to_give(server, client, sample):
    server.script = [server.reply(307, "", {"Location": "https://elsewhere/v1"})]
    done = client(can=PLAIN).ask(sample())
    assert "https://elsewhere/v1" in done.failure.message and not done.failure.retry


def test_one_failing_request_leaves_the_others_alone(server, client, sample):
    server.script = [server.reply(500, "")]
    one = client(can=PLAIN)
    slips = [one.submit(sample(seed=seed)) for seed in range(5)]
    done = [one.settled() for _ in slips]
    assert sum(item.failure is None for item in done) == 4


@pytest.mark.parametrize("text", ["日本語 🎉 née", "\r\n\t\x00", "a\u2028b\x85c"])
def test_any_text_comes_through_whatever_the_chunks(server, client, sample, text):
    raw = json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": "length"}]}, ensure_ascii=False)
    data = f"data: {raw}\n\n".encode()
    server.script = [server.stream([data[i : i + 1] for i in range(len(data))], then="end")]
    assert client(can=PLAIN).ask(sample()).reply.text == text
