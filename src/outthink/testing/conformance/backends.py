"""Laws for backends: the port as the runtime relies on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...core.backend import CAPABILITIES, Backend, Settled
from ...core.cost import Cost
from ...core.errors import InvalidInput, Unsupported
from ...core.monitor import GO, Action, Halt
from ...core.refs import Prefix
from ...core.request import Denoise, Draft, Embed, Sample, Score
from .desk import Desk, Slip

LUCK = frozenset({"cached", "recomputed", "device_ns", "kv_steps"})
"""Units that a bound need not promise."""


@dataclass(frozen=True)
class BackendCase:
    """A backend under test.

    make: builds a fresh one; it is closed after every law. model: the name that requests use.
    prompts: a few different ones. max_tokens, temperature, stop: settings with which it can write something.
    reward: the model name for `Score`, where it has one. patience: seconds to wait for one that works elsewhere.
    """

    make: Callable[[], Backend]
    model: str
    prompts: Sequence[str] = ("one\n", "two\n", "three\n")
    max_tokens: int = 12
    temperature: float = 1.0
    stop: str = "\n"
    reward: str | None = None
    patience: float = 30.0

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        backend = self.make()
        try:
            yield Desk(backend, patience=self.patience)
        finally:
            backend.close()

    def sample(self, i: int = 0, **changes: Any) -> Sample:
        """Return request number `i`: prompts in turn, every one its own seed."""
        prompt = Prefix(self.prompts[i % len(self.prompts)])
        whole = Sample(prompt, self.model, i, max_tokens=self.max_tokens, temperature=self.temperature)
        return replace(whole, **changes)


@dataclass(frozen=True)
class After:
    """A monitor that halts after `tokens` tokens."""

    tokens: int

    def start(self) -> int:
        return 0

    def step(self, memory: int, text: str, logprob: float | None) -> tuple[int, Action]:
        return memory + 1, Halt() if memory + 1 >= self.tokens else GO


def every_ticket_settles_exactly_once(case: BackendCase) -> None:
    """Alone and in a crowd, each ticket is reported once, and nothing is reported after its end (the desk checks)."""
    with case.desk() as desk:
        desk.serve([case.sample()])
        ends = desk.serve(case.sample(i) for i in range(1, 9))
        assert len(desk.settled) == 9 and not desk.flying
        assert all((end.reply is None) == (end.failure is not None) for end in ends)
        desk.backend.step()  # nothing is left to report: an item here would name a settled ticket


def costs_stay_within_their_bounds(case: BackendCase) -> None:
    """Every unit of every model costs at most what `bound` promised, and costs and bounds name the model asked for."""
    with case.desk() as desk:
        desk.serve(case.sample(i, max_tokens=n) for i, n in enumerate((1, 2, case.max_tokens, case.max_tokens)))
        assert_bounded(desk)


def assert_bounded(desk: Desk) -> None:
    for slip, end in desk.settled.items():
        for model, units in end.cost.counts.items():
            promised = slip.bound.counts.get(model, {})
            for unit, n in units.items():
                assert n >= 0, f"{slip.path}: {n} {unit}"
                assert unit in LUCK or n <= promised.get(unit, 0), f"{slip.path}: {n} {unit}, bound {promised}"


def costs_are_what_was_served(case: BackendCase) -> None:
    """A served sample costs one call, the prompt of its bound (where it counts exactly) and the tokens of its draft."""
    with case.desk() as desk:
        for end in desk.serve(case.sample(i) for i in range(4)):
            if not end.exact:
                continue
            assert end.cost.total("calls") == 1
            if end.reply.tokens is not None:
                assert end.cost.total("output") >= len(end.reply.tokens)  # an end-of-text token may be counted
                assert end.cost.total("output") <= len(end.reply.tokens) + 1
            if "prefix" in desk.backend.capabilities:
                assert end.cost.total("prompt") == end.ticket.bound.total("prompt")


def cancelled_tickets_settle(case: BackendCase) -> None:
    """Whenever it comes, a cancel leads to one end within the bound; cancelling twice or too late changes nothing."""
    for turns in (0, 1, 2):
        with case.desk() as desk:
            slips = [desk.offer(case.sample(i)) for i in range(4)]
            for _ in range(turns):
                if desk.flying:
                    desk.turn()
            for slip in slips[::2]:
                desk.backend.cancel(slip)
                desk.backend.cancel(slip)
            desk.finish()
            assert set(desk.settled) == set(slips)
            assert_bounded(desk)
            desk.backend.cancel(slips[0])
            assert desk.serve([case.sample(5)])[0].failure is None, "it serves no more after a late cancel"


def room_is_kept(case: BackendCase) -> None:
    """Room is never negative, shrinks with what is in flight, comes back, and never needs more requests to go on."""
    with case.desk() as desk:
        before = desk.backend.room()
        assert before >= 1, "no room for a single request"
        count = min(before, 8)
        for i in range(count):
            desk.offer(case.sample(i))
            assert 0 <= desk.backend.room() <= before
        desk.finish()
        assert desk.backend.room() == before


def drafts_continue_their_prefix(case: BackendCase) -> None:
    """The prefix of a reply is the request's, continued by exactly the text of the draft."""
    with case.desk() as desk:
        for i in range(3):
            request = case.sample(i)
            draft = only(desk.serve([request]))
            assert draft.prefix.text == request.prefix.text + draft.text
            assert request.prefix in draft.prefix.chain()
            again = only(desk.serve([replace(request, prefix=draft.prefix)]))
            assert again.prefix.text == draft.prefix.text + again.text


def held_prefixes_cost_nothing_again(case: BackendCase) -> None:
    """With capability `prefix`, what a run has sent or received is not in a later bound; without, it always is."""
    with case.desk() as desk:
        request = case.sample()
        draft = only(desk.serve([request]))
        child = replace(request, prefix=draft.prefix.extend(case.prompts[0]))
        slip = desk.offer(child)
        desk.finish()
        cold = desk.backend.bound(Slip(child, "cold", set()), child)
        if "prefix" in desk.backend.capabilities:
            assert slip.bound.total("prompt") < cold.total("prompt")
            twice = desk.backend.bound(slip, child).total("prompt")
            assert twice == 0, f"sent before and held, yet the bound has {twice} prompt tokens"
        else:
            assert slip.bound.total("prompt") >= cold.total("prompt")


def max_tokens_is_kept(case: BackendCase) -> None:
    """No draft is longer than asked for, and one that is cut says so."""
    with case.desk() as desk:
        for n in (1, 3):
            end = desk.serve([case.sample(n, max_tokens=n)])[0]
            assert end.cost.total("output") <= n
            assert end.reply.tokens is None or len(end.reply.tokens) <= n
            if end.reply.tokens is not None and len(end.reply.tokens) == n and end.reply.stop is None:
                assert end.reply.finish in ("length", "end")


def stops_end_a_draft(case: BackendCase) -> None:
    """A stop string ends the draft, stays in its text and is named; before its end the text has none."""
    with case.desk() as desk:
        for draft in map(only, ([end] for end in desk.serve(case.sample(i, stop=(case.stop,)) for i in range(6)))):
            if draft.finish == "stop":
                assert draft.stop == case.stop and draft.text.count(case.stop) == 1
            else:
                assert draft.stop is None and case.stop not in draft.text


def seeds_decide(case: BackendCase) -> None:
    """With capability `seed`: the same request gives the same draft again, alone or among others."""
    with case.desk() as desk:
        if "seed" not in desk.backend.capabilities:
            return
        alone = only(desk.serve([case.sample(3)]))
    with case.desk() as desk:
        crowd = desk.serve(case.sample(i) for i in range(7))
        assert crowd[3].reply.text == alone.text


def logprobs_are_one_per_token(case: BackendCase) -> None:
    """Asked for, they are log-probabilities, one per token; not asked for, there are none."""
    with case.desk() as desk:
        assert only(desk.serve([case.sample()])).logprobs is None
        if "logprobs" in desk.backend.capabilities:
            draft = only(desk.serve([case.sample(logprobs=True)]))
            assert draft.logprobs is not None and all(x <= 1e-6 for x in draft.logprobs)
            assert draft.tokens is None or len(draft.logprobs) == len(draft.tokens)


def monitors_halt(case: BackendCase) -> None:
    """With capability `monitor`, a rule that halts after two tokens leaves at most two; without, it is refused."""
    with case.desk() as desk:
        request = case.sample(monitor=After(2))
        if "monitor" not in desk.backend.capabilities:
            assert_refused(desk, request)
            return
        end = desk.serve([request])[0]
        assert end.reply.finish in ("monitor", "end")
        assert end.cost.total("output") <= case.max_tokens
        assert end.reply.tokens is None or not desk.backend.stepped or len(end.reply.tokens) <= 2


def the_unsupported_is_refused_unpaid(case: BackendCase) -> None:
    """What it cannot do it refuses in `bound`, with Unsupported or InvalidInput, and it has only known capabilities."""
    with case.desk() as desk:
        capabilities = desk.backend.capabilities
        assert capabilities <= CAPABILITIES, f"unknown capabilities {capabilities - CAPABILITIES}"
        if "denoise" not in capabilities:
            assert_refused(desk, Denoise(None, 1.0, case.model))  # type: ignore[arg-type]
        if "embed" not in capabilities:
            assert_refused(desk, Embed("text", case.model))
        if "score" not in capabilities:
            assert_refused(desk, Score(Prefix("text"), case.model))
        if "hidden" not in capabilities:
            assert_refused(desk, case.sample(hidden=True))
        assert not desk.settled


def assert_refused(desk: Desk, request: Any) -> None:
    try:
        desk.backend.bound(Slip(request, "desk/refused", desk.held), request)
    except (Unsupported, InvalidInput):
        return
    raise AssertionError(f"{request!r} was priced; capabilities: {sorted(desk.backend.capabilities)}")


def rewards_are_probabilities(case: BackendCase) -> None:
    """A reward is in [0, 1]; with a step delimiter there is one for every step and one for an unfinished last one."""
    if case.reward is None:
        return
    with case.desk() as desk:
        prompt = Prefix(case.prompts[0])
        texts = (f"a{case.stop}b{case.stop}", f"a{case.stop}b")
        requests = [Score(prompt.extend(t), case.reward, step=case.stop) for t in texts]
        requests.append(Score(prompt.extend(texts[0]), case.reward))
        ends = desk.serve(requests)
        for end in ends:
            assert 0 <= end.reply.value <= 1 and all(0 <= v <= 1 for v in end.reply.steps)
            assert end.cost.total("scores") == 1
        assert [len(end.reply.steps) for end in ends[:2]] == [2, 2]
        assert abs(ends[2].reply.value - ends[0].reply.value) < 1e-4
        assert_bounded(desk)


def streams_add_up(case: BackendCase) -> None:
    """Pieces that are streamed add up to the draft, and none comes after its end (the desk checks)."""
    with case.desk() as desk:
        slips = [desk.offer(case.sample(i)) for i in range(3)]
        desk.finish()
        for slip in slips:
            if slip in desk.streamed:
                assert desk.streamed[slip] == desk.settled[slip].reply.text


def slices_do_not_change_a_draft(case: BackendCase) -> None:
    """With capability `pause`: paid token by token or at once, a seeded draft is the same and costs the same."""
    with case.desk() as desk:
        if not {"pause", "seed"} <= desk.backend.capabilities:
            return
        whole = [desk.serve([case.sample(i)])[0] for i in range(4)]
    with case.desk() as desk:
        before = desk.backend.room()
        slips = [desk.offer(case.sample(i), paid=1 + i % 2) for i in range(4)]
        while desk.flying:
            while len(desk.paused) < len(desk.flying):
                desk.turn()
            if len(desk.flying) == 4:
                assert desk.backend.room() == before, "what is paused takes room"
            for slip in list(desk.paused):
                assert slip.bound.total("output") < case.max_tokens, "paused although the whole was paid for"
                desk.resume(slip, more=1)
        for end, slip in zip(whole, slips, strict=True):
            assert desk.settled[slip].reply.text == end.reply.text
            assert desk.settled[slip].cost.total("output") == end.cost.total("output")
        assert_bounded(desk)


def what_is_paused_can_end(case: BackendCase) -> None:
    """With capability `pause`: a paused ticket ends where it is when it is cut there, and when it is cancelled."""
    with case.desk() as desk:
        if "pause" not in desk.backend.capabilities:
            return
        slips = [desk.offer(case.sample(i), paid=1) for i in range(2)]
        while len(desk.paused) < 2:
            assert desk.flying.keys() >= set(slips), "a draft of a single token: no prompt of this case can be paused"
            desk.turn()
        desk.resume(slips[0], more=0, request=case.sample(0, max_tokens=1))
        del desk.paused[slips[1]]
        desk.backend.cancel(slips[1])
        desk.finish()
        cut, cancelled = (desk.settled[slip] for slip in slips)
        assert only([cut]).finish == "length" and cut.cost.total("output") == 1
        assert cancelled.reply is None and cancelled.cost.total("output") == 1
        assert_bounded(desk)


def close_may_be_called_twice(case: BackendCase) -> None:
    """Closing lets go of everything, in flight or not, and closing again does nothing."""
    backend = case.make()
    desk = Desk(backend, patience=case.patience)
    desk.offer(case.sample())
    backend.close()
    backend.close()


def only(ends: Sequence[Settled]) -> Draft:
    (end,) = ends
    assert end.failure is None, end.failure
    assert isinstance(end.reply, Draft)
    assert end.cost != Cost()
    return end.reply


BACKEND_LAWS = (
    every_ticket_settles_exactly_once, costs_stay_within_their_bounds, costs_are_what_was_served,
    cancelled_tickets_settle, room_is_kept, drafts_continue_their_prefix, held_prefixes_cost_nothing_again,
    max_tokens_is_kept, stops_end_a_draft, seeds_decide, logprobs_are_one_per_token, monitors_halt,
    the_unsupported_is_refused_unpaid, rewards_are_probabilities, streams_add_up, slices_do_not_change_a_draft,
    what_is_paused_can_end, close_may_be_called_twice,
)  # fmt: skip
