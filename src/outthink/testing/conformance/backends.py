"""Laws for backends: the port as the runtime relies on it."""

from __future__ import annotations

from dataclasses import replace

from ...core.backend import CAPABILITIES
from ...core.refs import Prefix
from ...core.request import Denoise, Embed, Score
from .backend_case import BackendCase, assert_bounded, assert_refused, only
from .desk import Desk, Slip
from .drafts import REPLY_LAWS


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


def close_may_be_called_twice(case: BackendCase) -> None:
    """Closing lets go of everything, in flight or not, and closing again does nothing."""
    backend = case.make()
    desk = Desk(backend, patience=case.patience)
    desk.offer(case.sample())
    backend.close()
    backend.close()


BACKEND_LAWS = (
    every_ticket_settles_exactly_once, costs_stay_within_their_bounds, costs_are_what_was_served,
    cancelled_tickets_settle, room_is_kept, drafts_continue_their_prefix, held_prefixes_cost_nothing_again,
    the_unsupported_is_refused_unpaid, *REPLY_LAWS, close_may_be_called_twice,
)  # fmt: skip
