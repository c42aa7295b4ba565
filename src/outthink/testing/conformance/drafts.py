"""Laws for what backends reply: drafts, scores, and drafts in slices."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.monitor import GO, Action, Halt
from ...core.refs import Prefix
from ...core.request import Score
from .backend_case import BackendCase, assert_bounded, assert_refused, only


@dataclass(frozen=True)
class After:
    """A monitor that halts after `tokens` tokens."""

    tokens: int

    def start(self) -> int:
        return 0

    def step(self, memory: int, text: str, logprob: float | None) -> tuple[int, Action]:
        return memory + 1, Halt() if memory + 1 >= self.tokens else GO


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


REPLY_LAWS = (
    max_tokens_is_kept, stops_end_a_draft, seeds_decide, logprobs_are_one_per_token, monitors_halt,
    rewards_are_probabilities, streams_add_up, slices_do_not_change_a_draft, what_is_paused_can_end,
)  # fmt: skip
