"""Recorded samples dealt to any method as if a model had just drawn them: the same costs, no model at work."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.backend import Failure, Item, Settled, Ticket
from ..core.cost import Cost
from ..core.errors import Unsupported
from ..core.refs import nearest
from ..core.request import Draft, Request, Sample
from ..core.seeds import fold
from ..core.trace import Served

Key = tuple[str, bytes, tuple[Any, ...]]
"""Model, digest of the prompt, settings: what two samples must share to be draws from the same distribution."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One draw: its text and tokens, how it ended, and how long it was allowed to be."""

    text: str
    tokens: tuple[int, ...]
    finish: Literal["end", "stop", "length", "monitor"]
    most: int
    stop: str | None = None
    vocabulary: str = ""
    logprobs: tuple[float, ...] | None = None


@dataclass(slots=True)
class Recording:
    """What was drawn for each key, and the tokens of each prompt."""

    samples: dict[Key, list[Recorded]] = field(default_factory=dict)
    prompts: dict[tuple[str, bytes], int] = field(default_factory=dict)

    def take(self, events: Iterable[Served]) -> int:
        """Record the samples of a trace of level "full" that continue a prompt; return how many there were.

        The prompt's length is what the first of them was charged for it, so give all events of a run.
        """
        drawn = [(event.request, event.reply, event.cost.total("prompt")) for event in events
                 if isinstance(event.request, Sample) and isinstance(event.reply, Draft) and event.status == "done"
                 and event.request.prefix.parent is None]  # fmt: skip
        lengths: dict[bytes, int] = {}
        for request, _, prompt in drawn:
            lengths[request.prefix.digest] = max(prompt, lengths.get(request.prefix.digest, 0))
        for request, draft, _ in drawn:
            self.add(request, draft, prompt_tokens=lengths[request.prefix.digest])
        return len(drawn)

    def add(self, request: Sample, draft: Draft, *, prompt_tokens: int) -> None:
        """Record one draw. `prompt_tokens`: length of the whole prompt. Ignores what a Monitor or a clip cut short.

        Raises Unsupported if the draft has no token ids: without them its cost would be a guess.
        """
        if draft.tokens is None or request.max_tokens is None:
            raise Unsupported("a pool records samples with token ids and max_tokens; this one lacks them")
        if draft.finish == "monitor" or (draft.finish == "length" and len(draft.tokens) < request.max_tokens):
            return
        drawn = Recorded(draft.text, draft.tokens, draft.finish, request.max_tokens, draft.stop,
                         draft.prefix.vocabulary, draft.logprobs)  # fmt: skip
        self.samples.setdefault(key_of(request), []).append(drawn)
        self.prompts[request.model, request.prefix.digest] = prompt_tokens


def key_of(request: Sample, of: Mapping[str, str] | None = None) -> Key:
    """Return the key of a request, without `seed` and `max_tokens`. `of` maps model names to recorded ones."""
    settings = (request.temperature, request.top_p, request.min_p, request.stop)
    return ((of or {}).get(request.model, request.model), request.prefix.digest, settings)


class Pool:
    """Serves `Sample` from a `Recording`.

    A run's k-th request for a key gets the k-th sample in an order that `seed` decides, so runs see equal draws and no
    run sees one twice; the greedy sample (temperature 0) is always the same. Costs are those of the recording: the
    prompt once per run, every token of the sample. A shorter `max_tokens` cuts the sample where it would have been
    cut. A key or run that asks for more than was recorded fails, and says how much there was.

    decode: token ids -> text, for cut samples; without it a request that would need a cut fails.
    of: model name -> name under which it was recorded, where the pool stands under a name of its own.
    """

    stepped = True
    capabilities = frozenset({"sample", "prefix", "stop"})

    def __init__(
        self, recording: Recording, *, decode: Callable[[Sequence[int]], str] | None = None,
        of: Mapping[str, str] | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.recording, self.decode, self.of, self.seed = recording, decode, of or {}, seed
        self._orders: dict[Key, list[int]] = {}
        # Runs are told apart by their set of held prefixes; keeping the set alive keeps its identity its own.
        self._dealt: dict[int, tuple[Any, dict[Key, int]]] = {}
        self._waiting: dict[Ticket, Sample] = {}
        self._ended: list[Item] = []

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        if not isinstance(request, Sample):
            raise Unsupported(f"a pool serves Sample, not {type(request).__name__}; give that to another model")
        if request.monitor is not None or request.hidden:
            raise Unsupported("a pool has recorded texts, no monitors and no hidden states; use the model itself")
        samples = self._samples(request)
        whole = self.recording.prompts[key_of(request, self.of)[:2]]
        new = 0 if nearest(request.prefix, ticket.held) is not None else whole
        most = request.max_tokens if request.max_tokens is not None else min(sample.most for sample in samples)
        short = [sample for sample in samples if sample.finish == "length" and sample.most < most]
        if short:
            raise Unsupported(f"samples were recorded with max_tokens={short[0].most}; {most} needs a new recording")
        return Cost.of(request.model, calls=1, prompt=new, output=most, attended=_attended(whole - new, new + most))

    def room(self) -> int:
        return 1 << 20

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        if not isinstance(request, Sample):
            raise TypeError(f"a pool samples; it was asked for {type(request).__name__}")
        self._waiting[ticket] = request

    def cancel(self, ticket: Ticket) -> None:
        request = self._waiting.pop(ticket, None)
        if request is not None:
            self._ended.append(Settled(ticket, None, Cost(), Failure("cancelled")))

    def step(self) -> Sequence[Item]:
        out, self._ended = self._ended, []
        waiting, self._waiting = self._waiting, {}
        out.extend(self._deal(ticket, request) for ticket, request in waiting.items())
        return out

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        self._waiting.clear()
        self._ended.clear()
        self._dealt.clear()

    def _samples(self, request: Sample) -> list[Recorded]:
        samples = self.recording.samples.get(key_of(request, self.of))
        if not samples:
            raise Unsupported(f"nothing was recorded for {request.prefix!r} of {request.model!r} with these settings")
        return samples

    def _deal(self, ticket: Ticket, request: Sample) -> Settled:
        samples, key = self._samples(request), key_of(request, self.of)
        _, counts = self._dealt.setdefault(id(ticket.held), (ticket.held, {}))
        place = counts.get(key, 0)
        counts[key] = place + 1
        if request.temperature == 0:
            place = 0
        if place >= len(samples):
            return Settled(ticket, None, Cost(), Failure(f"the pool has {len(samples)} samples of it; record more"))
        sample = samples[self._order(key, len(samples))[place]]
        units: Mapping[str, int] = ticket.bound.counts[request.model]
        tokens = sample.tokens[: units["output"]]
        cut = len(tokens) < len(sample.tokens)
        if cut and self.decode is None:
            return Settled(ticket, None, Cost(), Failure("a recorded sample must be cut short; give the pool `decode`"))
        text = self.decode(tokens) if cut and self.decode is not None else sample.text
        draft = Draft(
            text, "length" if cut else sample.finish,
            request.prefix.extend(text, tokens=tokens, vocabulary=sample.vocabulary), tokens,
            None if cut else sample.stop, sample.logprobs[: len(tokens)] if sample.logprobs else None,
        )  # fmt: skip
        whole = self.recording.prompts[key_of(request, self.of)[:2]]
        new = units["prompt"]
        attended = _attended(whole - new, new + len(tokens))
        return Settled(
            ticket, draft, Cost.of(request.model, calls=1, prompt=new, output=len(tokens), attended=attended)
        )

    def _order(self, key: Key, count: int) -> list[int]:
        if key not in self._orders:
            order = list(range(count))
            random.Random(fold(self.seed, "pool", key)).shuffle(order)
            self._orders[key] = order
        return self._orders[key]


def _attended(before: int, positions: int) -> int:
    """Sum of context lengths over `positions` computed after `before` others."""
    return positions * before + positions * (positions + 1) // 2
