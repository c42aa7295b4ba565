"""What the probe finds out about servers that do, refuse or silently ignore things."""

import dataclasses

import pytest

from outthink.core.errors import Unsupported
from outthink.models.openai import PRESETS

pytestmark = pytest.mark.loopback

BASIC = frozenset({"model", "messages", "prompt", "max_tokens", "temperature", "seed", "stop", "stream", "top_p"})


def test_a_server_that_does_everything_is_found_to_do_everything(server, client):
    server.manners = dataclasses.replace(server.manners, names_stop=True, include_flag=True, min_p=True, continues=True)
    found = client().backend.probe()
    can = found.can
    assert (can.api, can.continues, can.stop, can.include_stop) == ("chat", "flags", "keep", True)
    assert can.logprobs and can.seed and can.min_p and can.samples and can.stream
    assert can.context == 4000
    assert found.notes == ()
    assert can.capabilities == {"sample", "seed", "stop", "logprobs", "monitor", "continue"}


@pytest.mark.parametrize(
    ("kind", "found"), [("strip", "strip"), ("keep", "keep"), ("token", "keep"), ("ignore", "ignore")]
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_becomes_of_a_stop_string_is_found(server, client, kind, found, stream):
    server.manners = dataclasses.replace(server.manners, stop=kind, stream=stream)
    assert client().backend.probe().can.stop == found


def test_the_cost_of_the_probe_is_what_the_server_served(server, client):
    found = client().backend.probe()
    assert found.cost.tokens == server.served
    assert found.cost.total("calls") == len(server.asked)
    assert found.cost.total("output") <= 16 * 10


@pytest.mark.parametrize(
    ("manners", "lost"),
    [
        ({"logprobs": False}, {"logprobs"}),
        ({"seed": False}, {"seed"}),
        ({"stop": "ignore"}, {"stop"}),
        ({"continues": False}, {"continue"}),
        ({"stream": False}, {"monitor"}),
    ],
)
def test_what_a_server_silently_ignores_is_no_capability(server, client, manners, lost):
    server.manners = dataclasses.replace(server.manners, **({"continues": True} | manners))
    every = {"sample", "seed", "stop", "logprobs", "monitor", "continue"}
    assert client().backend.capabilities == every - lost


def test_fields_that_are_refused_are_left_out_from_then_on(server, client, sample):
    server.manners = dataclasses.replace(server.manners, known=BASIC)
    one = client()
    can = one.backend.probe().can
    assert {"logprobs", "stream_options", "min_p"} <= can.refuses
    assert can.seed and can.stop == "strip"
    asked = len(server.asked)
    assert one.ask(sample(logprobs=False)).failure is None
    assert set(server.asked[asked]) <= BASIC
    with pytest.raises(Unsupported, match="min_p"):
        one.submit(sample(min_p=0.1))


def test_a_base_model_without_a_chat_template_is_used_by_completions(server, client, sample):
    server.manners = dataclasses.replace(server.manners, chat=False)
    one = client()
    assert one.backend.probe().can.api == "completions"
    assert "continue" in one.backend.capabilities
    assert one.ask(sample("Once", " upon a time")).failure is None
    assert server.asked[-1]["prompt"] == "Once upon a time"


def test_a_chat_template_that_adds_nothing_means_a_base_model(server, client):
    """What it has written can be continued by completions, and not always as a chat."""
    server.manners = dataclasses.replace(server.manners, bare=True)
    can = client().backend.probe().can
    assert (can.api, can.stop, can.overhead) == ("completions", "strip", 5)
    assert client(api="chat").backend.probe().can.api == "chat"


def test_a_server_that_only_decodes_greedily_is_noted(server, client):
    server.manners = dataclasses.replace(server.manners, greedy_only=True)
    found = client().backend.probe()
    assert not found.can.samples and not found.can.seed
    assert "all samples may be the same" in found.notes[0]


def test_usage_only_without_streaming_turns_streaming_off(server, client, sample):
    def only_at_once(usage):
        return None if server.asked[-1].get("stream") else usage

    server.manners = dataclasses.replace(server.manners, usage_of=only_at_once)
    one = client()
    assert not one.backend.probe().can.stream
    assert one.ask(sample()).exact


def test_a_field_named_max_completion_tokens_is_found(server, client, sample):
    server.manners = dataclasses.replace(server.manners, known=None)

    async def picky(request, body):
        if "max_tokens" in body:
            from aiohttp import web

            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return web.json_response({"error": {"message": message}}, status=400)
        return await server.answer(request, body)

    server.script = [picky] * 30
    one = client()
    assert one.backend.probe().can.limit == "max_completion_tokens"
    one.ask(sample())
    assert server.asked[-1]["max_completion_tokens"] == 8


def test_with_a_preset_nothing_is_asked(server, client, sample):
    one = client(can=PRESETS["plain"])
    assert one.backend.capabilities == {"sample", "monitor", "stop"}
    assert server.asked == []
    assert one.ask(sample()).failure is None
    assert len(server.asked) == 1


def test_many_first_requests_share_one_probe(server, client, sample):
    one = client()
    for seed in range(8):
        one.submit(sample(seed=seed))
    for _ in range(8):
        assert one.settled().failure is None
    probes = [body for body in server.asked if "Write random words." in str(body)]
    assert len(server.asked) - len(probes) == 8
    assert len(probes) == one.backend.probed.cost.total("calls")


def test_a_probe_that_fails_half_way_is_begun_anew(server, client, sample, caplog):
    server.script = [server.late(0)] + [server.reply(429, "{}", {"Retry-After": "0"})] * 9
    one = client()
    failed = one.ask(sample())
    assert failed.failure.retry and "429" in failed.failure.message
    assert one.backend.probed is None
    server.script = []
    assert one.ask(sample()).failure is None
    assert not caplog.records, "every failed question has been asked about"


def test_the_overhead_learnt_makes_a_bound_that_holds(server, client, sample):
    one = client()
    one.backend.probe()
    slip = one.submit(sample("word " * 3))
    settled = one.settled(slip)
    assert settled.cost.total("prompt") <= slip.bound.total("prompt") < 100


@pytest.mark.parametrize("models", [500, {"data": "none"}, {"data": [{"id": "m"}]}, []])
def test_a_server_without_a_useful_list_of_models_is_used_all_the_same(server, client, sample, models):
    server.models = models
    one = client()
    assert one.backend.probe().can.context is None
    assert one.ask(sample()).failure is None
