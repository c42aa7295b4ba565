"""What comes back from a server that answers: texts, stops, log-probabilities, costs, monitors, cancellation."""

import dataclasses
import threading
import time
from dataclasses import dataclass

import pytest

from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.monitor import GO, Force, Halt
from outthink.core.request import Score
from outthink.models.openai import PRESETS, Abilities

pytestmark = pytest.mark.loopback

PLAIN = PRESETS["plain"]


def test_an_answer_is_text_prefix_and_exact_cost(server, client, sample):
    one, request = client(can=PLAIN), sample()
    done = one.ask(request)
    draft = done.reply
    assert done.failure is None and done.exact
    assert (draft.finish, len(draft.text.split())) == ("length", 8)
    assert draft.prefix == request.prefix.extend(draft.text)
    assert done.cost == Cost.of("openai/m", calls=1, prompt=server.served - 8, output=8)
    assert "".join(one.shown) == draft.text and len(one.shown) == 8


def test_costs_are_booked_under_the_name_of_the_request(server, client, sample):
    done = client(can=PLAIN).ask(sample(model="policy"))
    assert list(done.cost.counts) == ["policy"]
    assert server.asked[-1]["model"] == "m"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", ["strip", "keep", "token", "ignore"])
def test_the_text_ends_with_its_stop_string_whatever_the_server_does(server, client, sample, kind, api, stream):
    server.manners = dataclasses.replace(server.manners, stop="ignore")
    can = Abilities(api=api, stop="keep" if kind == "token" else kind, stream=stream)
    full = client(can=can).ask(sample()).reply.text
    stop = full.split()[3][:-1]  # ends inside a token
    server.manners = dataclasses.replace(server.manners, stop=kind)
    one = client(can=can)
    done = one.ask(sample(stop=(stop,)))
    assert done.reply.text == full[: full.index(stop) + len(stop)] == "".join(one.shown)
    assert (done.reply.finish, done.reply.stop, done.exact) == ("stop", stop, True)
    assert done.cost.total("output") == (8 if kind == "ignore" else full[: full.index(stop)].count(" "))


def test_a_server_that_names_the_stop_string_leaves_no_doubt(server, client, sample):
    server.manners = dataclasses.replace(server.manners, names_stop=True)
    one = client(can=PLAIN)
    full = one.ask(sample()).reply.text
    done = one.ask(sample(stop=("absent", full.split()[2])))
    assert done.reply.stop == full.split()[2] and done.reply.text.endswith(done.reply.stop)


def test_a_server_trusted_to_end_when_we_leave_is_left_after_a_stop_string_it_ignores(server, client, sample):
    server.manners = dataclasses.replace(server.manners, stop="ignore")
    one = client(can=Abilities(stop="ignore", grace=1))
    done = one.ask(sample(stop=(" ",), max_tokens=200))
    assert (done.reply.text, done.exact) == (" ", False)
    assert done.cost.total("output") < 20


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_log_probabilities_align_with_the_text(server, client, sample, api, stream):
    server.manners = dataclasses.replace(server.manners, stop="ignore")
    one = client(can=Abilities(api=api, logprobs=True, stream=stream, stop="ignore"))
    assert one.ask(sample(logprobs=True)).reply.logprobs == tuple(-0.5 - i for i in range(8))
    full = one.ask(sample()).reply.text
    cut = one.ask(sample(logprobs=True, stop=(full.split()[2],))).reply
    assert len(cut.logprobs) == cut.text.count(" ") < 8


def test_log_probabilities_that_do_not_come_are_a_failure_that_is_paid(server, client, sample):
    server.manners = dataclasses.replace(server.manners, logprobs=False)
    done = client(can=Abilities(logprobs=True)).ask(sample(logprobs=True))
    assert "log-probabilities" in done.failure.message and not done.failure.retry
    assert (done.cost.tokens, done.exact) == (server.served, True)


def test_the_same_seed_gives_the_same_text_and_seeds_fit_in_31_bits(server, client, sample):
    one = client(can=PLAIN)
    texts = [one.ask(sample(seed=seed)).reply.text for seed in (2**62 + 1, 2**62 + 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(0 <= body["seed"] < 2**31 for body in server.asked)


def test_fields_that_the_server_refuses_are_not_sent(server, client, sample):
    client(can=Abilities(refuses=frozenset({"seed", "temperature"}))).ask(sample(temperature=1.0))
    assert not {"seed", "temperature"} & set(server.asked[-1])


def test_a_chat_is_continued_where_the_server_can(server, client, sample):
    server.manners = dataclasses.replace(server.manners, continues=True)
    one = client(can=Abilities(continues="flags"))
    whole = one.ask(sample(temperature=0.0)).reply.text
    half = " ".join(whole.split(" ")[:4])
    rest = one.ask(sample("Say something.", half, temperature=0.0, max_tokens=5)).reply.text
    assert half + rest == whole
    assert server.asked[-1]["messages"][-1] == {"role": "assistant", "content": half}


@pytest.mark.parametrize(
    ("can", "knobs", "written", "words"),
    [
        (PLAIN, {}, ["so far"], "continuation of an answer"),
        (PLAIN, {"logprobs": True}, [], "log-probabilities"),
        (PLAIN, {"hidden": True}, [], "hidden states"),
        (PLAIN, {"min_p": 0.1}, [], "min_p"),
        (Abilities(refuses=frozenset({"temperature"})), {"temperature": 0.5}, [], "temperature"),
        (Abilities(stream=False), {"monitor": "any"}, [], "Monitor"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(server, client, sample, can, knobs, written, words):
    with pytest.raises(Unsupported, match=words):
        client(can=can).submit(sample("Say.", *written, **knobs))
    assert server.asked == []


def test_what_the_probe_finds_missing_fails_at_no_cost_when_the_request_was_first(server, client, sample):
    server.manners = dataclasses.replace(server.manners, logprobs=False)
    done = client().ask(sample(logprobs=True))
    assert "log-probabilities" in done.failure.message and not done.failure.retry
    assert done.cost == Cost() and done.exact


def test_requests_without_max_tokens_get_the_context(server, client, sample):
    one = client(can=Abilities(context=500, overhead=20))
    slip = one.submit(sample("x" * 30, max_tokens=None))
    assert slip.bound == Cost.of("openai/m", calls=1, prompt=50, output=450)
    one.settled(slip)
    assert server.asked[-1]["max_tokens"] == 450
    with pytest.raises(InvalidInput, match="shorten"):
        one.submit(sample("x" * 480, max_tokens=None))


def test_unusable_requests_are_refused(client, sample):
    one = client(can=PLAIN)
    with pytest.raises(InvalidInput, match="give max_tokens"):
        one.submit(sample(max_tokens=None))
    with pytest.raises(InvalidInput, match="at least one token"):
        one.submit(sample(max_tokens=0))
    with pytest.raises(InvalidInput, match="empty"):
        one.submit(sample(""))
    with pytest.raises(Unsupported, match="not Score"):
        one.backend.bound(None, Score(sample().prefix, "openai/m"))
    with pytest.raises(InvalidInput, match="concurrency"):
        client(concurrency=0)


def test_room_is_what_is_left_of_the_concurrency(server, client, sample):
    one = client(can=PLAIN, concurrency=3)
    slips = [one.submit(sample(seed=i)) for i in range(2)]
    assert one.backend.room() == 1
    for _ in slips:
        one.settled()
    assert one.backend.room() == 3


def test_room_is_free_when_the_settlement_arrives(client, sample):
    """Who is woken by it looks at the room at once."""
    one, rooms = client(can=PLAIN, concurrency=1), []
    one.backend.attach(lambda items: [rooms.append(one.backend.room()), *map(one.inbox.put, items)] and None)
    one.ask(sample())
    assert rooms[-1] == 1


def test_what_the_server_counted_bounds_the_next_request_of_the_same_prompt(client, sample):
    one = client(can=PLAIN)
    first = one.ask(sample("one two three"))
    assert first.ticket.bound.total("prompt") > first.cost.total("prompt")
    assert one.submit(sample("one two three")).bound.total("prompt") == first.cost.total("prompt")
    one.settled()


@dataclass(frozen=True)
class Watch:
    """Halts after `chunks` chunks, taking back `back`; or forces text."""

    chunks: int = 3
    back: int = 0
    force: bool = False

    def start(self):
        return ()

    def step(self, memory, text, logprob):
        memory = (*memory, (text, logprob))
        if len(memory) < self.chunks:
            return memory, GO
        return memory, Force("so") if self.force else Halt(self.back)


@pytest.mark.parametrize(("back", "words"), [(0, 3), (1, 2), (9, 0)])
def test_a_monitor_halts_at_a_chunk(server, client, sample, back, words):
    one = client(can=Abilities(logprobs=True))
    full = one.ask(sample()).reply.text
    done = one.ask(sample(monitor=Watch(back=back)))
    assert done.reply.finish == "monitor"
    assert done.reply.text == "".join(f" {word}" for word in full.split()[:words])
    assert [chance for _, chance in done.reply.memory] == [-0.5, -1.5, -2.5]
    assert not done.exact


def test_a_halted_answer_is_paid_at_its_bound_or_with_grace_at_what_was_seen(client, sample):
    one = client(can=PLAIN)
    slip = one.submit(sample(monitor=Watch(), max_tokens=90))
    assert one.settled(slip).cost == slip.bound
    two = client(can=Abilities(grace=2))
    slip = two.submit(sample(monitor=Watch(), max_tokens=90))
    done = two.settled(slip)
    assert done.cost.total("output") == len(done.reply.text) + 2
    assert done.cost.total("prompt") == slip.bound.total("prompt")


def test_a_monitor_sees_nothing_after_a_stop_string(server, client, sample):
    server.manners = dataclasses.replace(server.manners, stop="ignore")
    one = client(can=PLAIN)
    full = one.ask(sample()).reply.text
    done = one.ask(sample(monitor=Watch(chunks=100), stop=(full.split()[1][:2],)))
    assert "".join(text for text, _ in done.reply.memory) == done.reply.text == "".join(one.shown[8:])
    assert all(text for text, _ in done.reply.memory) and all(one.shown)
    assert done.reply.finish == "stop"


def test_a_monitor_that_forces_or_fails_ends_the_attempt_for_good(client, sample):
    one = client(can=PLAIN)
    assert "forces text" in one.ask(sample(monitor=Watch(force=True))).failure.message
    broken = one.ask(sample(monitor=Watch(chunks="three")))
    assert "TypeError" in broken.failure.message and not broken.failure.retry


SAID = {"choices": [{"index": 0, "delta": {"content": " red"}, "finish_reason": None}]}


def test_cancelling_drops_the_connection_and_settles_once(server, client, sample):
    server.script = [server.stream([SAID], then="hang")]
    one = client(can=PLAIN)
    slip = one.submit(sample())
    assert one.inbox.get(timeout=5).text == " red"
    one.backend.cancel(slip)
    one.backend.cancel(slip)
    done = one.settled(slip)
    assert done.reply is None and done.failure.message == "cancelled" and not done.failure.retry
    assert (done.cost, done.exact) == (slip.bound, False)
    assert server.dropped.wait(5)
    assert one.backend.room() == one.backend.concurrency and one.inbox.empty()


def test_cancelling_before_anything_was_sent_costs_nothing(server, client, sample):
    """A server that asked to wait: what is submitted meanwhile has not been sent."""
    server.script = [server.reply(429, "{}", {"Retry-After": "30"})]
    one = client(can=PLAIN)
    one.ask(sample())
    slip = one.submit(sample())
    one.backend.cancel(slip)
    done = one.settled(slip)
    assert (done.cost, done.exact) == (Cost(), True)
    assert len(server.asked) == 1


def test_cancelling_one_that_waits_for_the_probe_leaves_the_others_waiting(server, client, sample):
    server.script = [server.late(0.03)]
    one = client()
    slips = [one.submit(sample(seed=seed)) for seed in range(3)]
    assert server.reached.wait(5)
    one.backend.cancel(slips[0])
    done = {item.ticket: item for item in (one.settled() for _ in slips)}
    assert (done[slips[0]].failure.message, done[slips[0]].cost) == ("cancelled", Cost())
    assert all(done[slip].failure is None for slip in slips[1:])


def test_cancelling_what_has_settled_does_nothing(client, sample):
    one = client(can=PLAIN)
    slip = one.submit(sample())
    one.settled(slip)
    one.backend.cancel(slip)
    assert one.ask(sample()).failure is None and one.inbox.empty()


def test_a_thousand_cancelled_requests_leak_nothing(server, client, sample):
    one = client(can=PLAIN, concurrency=1000)
    slips = [one.submit(sample(seed=seed)) for seed in range(1000)]
    for slip in slips:
        one.backend.cancel(slip)
    assert {one.settled().ticket for _ in slips} == set(slips)
    assert one.backend.room() == 1000


def test_closing_settles_what_is_in_flight_and_ends_the_thread(server, client, sample):
    server.script = [server.stream([SAID], then="hang")]
    one = client(can=PLAIN)
    slip = one.submit(sample())
    one.inbox.get(timeout=5)
    one.backend.close()
    assert one.settled(slip).failure.message == "cancelled"
    assert not [thread for thread in threading.enumerate() if thread.name == "outthink-http"]
    with pytest.raises(RuntimeError, match="closed"):
        one.submit(sample())
    one.backend.close()


def test_a_backend_that_is_forgotten_ends_its_thread(server, sample):
    import gc

    from outthink.models.openai import OpenAI

    backend = OpenAI("m", base_url=server.url)
    backend.probe()
    del backend
    gc.collect()
    deadline = time.monotonic() + 5
    while any(thread.name == "outthink-http" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not [thread for thread in threading.enumerate() if thread.name == "outthink-http"]
