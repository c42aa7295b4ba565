"""The white-box engine behind the backend port: exact bounds, exact costs, hidden states by Ref."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.backend import Failure, Item, Paused, Progress, Settled, Ticket
from ..core.budget import Card
from ..core.cost import Cost
from ..core.errors import InvalidInput, Unsupported
from ..core.refs import Ref, nearest
from ..core.request import Draft, Request, Sample, Score
from ..engine.checkpoint import CheckpointError, Config, shapes
from ..engine.engine import Engine
from ..engine.jobs import Event, Finished, Piece

_HIDDEN_BYTES = 256 << 20


class EngineBackend:
    """Serves `Sample` and `Score(of="logprob")` from a language model, `Score(of="reward")` from a reward model.

    Costs: `prompt` counts what the run had not sent or received before, `output` every token drawn or forced (the end
    of the text too), `attended` the sum of context lengths over both.  Every token is booked with the request that
    brought it, whether the engine computes it then, had it already (`cached`) or computes it again (`recomputed`).
    """

    stepped = True

    def __init__(self, engine: Engine, *, name: str) -> None:
        self.engine, self.name, self.card = engine, name, card(engine.config)
        kind = {"score"} if engine.config.is_reward_model else _WRITES
        self.capabilities = frozenset({"prefix", *kind})
        self._tickets: dict[Ticket, Request[Any]] = {}
        self._hidden: OrderedDict[Ref, Tensor] = OrderedDict()
        self._hidden_bytes = self._refs = 0

    @classmethod
    def load(cls, folder: str | Path, *, name: str, **options: Any) -> EngineBackend:
        """Return a backend for the checkpoint in `folder`; options are those of `Engine`.

        Raises InvalidInput for a checkpoint that cannot be used, Unsupported for a mode that this machine cannot do.
        """
        try:
            return cls(Engine.load(folder, **options), name=name)
        except CheckpointError as error:
            raise InvalidInput(f"{name}: {error}") from error

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        if not isinstance(request, Sample | Score):
            raise Unsupported(f"{self.name!r} serves Sample and Score, not {type(request).__name__}")
        most = self.engine.limit(request)
        total = self.engine.links.of(request.prefix).end
        start = nearest(request.prefix, ticket.held)
        held = 0 if start is None else self.engine.links.of(start).end
        return self._cost(request, held, total - held, most)

    def room(self) -> int:
        return max(0, self.engine.rows - len(self.engine) + self.engine.paused)

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        if not isinstance(request, Sample | Score):
            raise Unsupported(f"{self.name!r} serves Sample and Score, not {type(request).__name__}")
        writes = isinstance(request, Sample)
        self.engine.submit(
            ticket,  # type: ignore[arg-type]
            request,
            owner=ticket.run,
            allowed=partial(_paid, ticket) if writes else None,
            watched=partial(_watched, ticket) if writes else None,
        )
        self._tickets[ticket] = request

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        assert isinstance(request, Sample)
        self._tickets[ticket] = request
        self.engine.resume(ticket, most=request.max_tokens)  # type: ignore[arg-type]

    def cancel(self, ticket: Ticket) -> None:
        self.engine.cancel(ticket)  # type: ignore[arg-type]

    def step(self) -> Sequence[Item]:
        return [item for event in self.engine.step() for item in self._items(event)]

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        """Let go of what is in flight, of held prefixes and of hidden states."""
        for ticket in self._tickets:
            self.engine.cancel(ticket)  # type: ignore[arg-type]
        if self._tickets:
            self.engine.step()
        self._tickets.clear()
        self.engine.forest.clear()
        self._hidden.clear()
        self._hidden_bytes = 0

    def hidden(self, ref: Ref) -> Tensor:
        """Return the final hidden states [tokens of the draft, hidden_size] that `ref` (of `Draft.hidden`) names.

        They are held while the draft's prefix is alive, and the oldest are dropped above 256 MiB.
        """
        states = self._hidden.get(ref)
        if states is None:
            raise InvalidInput(f"{ref} is not held here (any more); read hidden states while their draft is alive")
        return states

    def _cost(self, request: Sample | Score, held: int, prompt: int, output: int, **more: int) -> Cost:
        new = prompt + output
        attended = new * held + new * (new + 1) // 2
        kind = {"output": output} if isinstance(request, Sample) else {"scores": 1}
        return Cost.of(request.model, calls=1, prompt=prompt, attended=attended, **kind, **more)

    def _items(self, event: Event) -> list[Item]:
        ticket: Ticket = event.key  # type: ignore[assignment]
        if isinstance(event, Finished):
            rest = [Progress(ticket, event.rest)] if event.rest else []
            return [*rest, self._settled(ticket, event)]
        return [Progress(ticket, event.text) if isinstance(event, Piece) else Paused(ticket)]

    def _settled(self, ticket: Ticket, done: Finished) -> Settled:
        request = self._tickets.pop(ticket)
        assert isinstance(request, Sample | Score)
        prompt = ticket.bound.total("prompt")
        luck = {"cached": max(0, prompt - done.computed), "recomputed": max(0, done.computed - prompt)}
        if done.reply is None:
            luck["cached"] = 0  # it may not have come to its turn
        cost = self._cost(request, done.prompt - prompt, prompt, done.generated, **luck)
        kv = done.pages * self.engine.forest.pages.page_bytes
        if done.error is not None:
            return Settled(ticket, None, cost, Failure(str(done.error)), kv=kv)
        if done.reply is None:
            return Settled(ticket, None, cost, Failure("cancelled"), kv=kv)
        reply = done.reply
        if isinstance(reply, Draft) and done.hidden is not None:
            reply = replace(reply, hidden=self._keep(ticket.path, reply, done.hidden))
        return Settled(ticket, reply, cost, kv=kv)

    def _keep(self, path: str, draft: Draft, states: Tensor) -> Ref:
        self._refs += 1
        ref = Ref(self.name, path, self._refs)
        self._hidden[ref] = states
        self._hidden_bytes += states.nbytes
        weakref.finalize(draft.prefix, self._forget, ref).atexit = False
        while self._hidden_bytes > _HIDDEN_BYTES and len(self._hidden) > 1:
            self._forget(next(iter(self._hidden)))
        return ref

    def _forget(self, ref: Ref) -> None:
        states = self._hidden.pop(ref, None)
        self._hidden_bytes -= 0 if states is None else states.nbytes


_WRITES = frozenset("sample continue score seed stop logprobs hidden monitor force pause".split())


def _paid(ticket: Ticket) -> int:
    return ticket.bound.total("output")


def _watched(ticket: Ticket) -> bool:
    return ticket.watched


def card(config: Config) -> Card:
    """Return parameters and attention FLOPs per attended position (scores and sum: 2 * 2 per channel and layer)."""
    params = sum(prod(shape) for shape in shapes(config).values())
    return Card(params=params, attention=4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim)
