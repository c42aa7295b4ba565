"""The backend of OpenAI-compatible servers: vLLM, SGLang, llama.cpp, Ollama, transformers' serve, OpenAI, proxies."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ...core.backend import Failure, Item, Progress, Settled, Ticket
from ...core.cost import Cost
from ...core.errors import InvalidInput, Unsupported
from ...core.request import Request, Sample
from .abilities import Abilities
from .answer import Answer, whole
from .connection import Connection, Timeouts
from .count import PromptCounter, tokenizer_counter
from .failures import Broken, Patience, Place
from .follow import check, follow
from .probe import Probed, probe
from .usage import seen, served
from .wire import PATHS, body


class OpenAI:
    """Serves `Sample` from one model of a server, in a thread of its own.

    What the server can do is found by a probe, once, when it is first needed (see `probe`: about ten requests of at
    most 16 tokens; `probed.cost` says what it took, which is part of no run), or given as `can`.
    Costs: what the server says it used. Where it does not say (an answer cut or left in the middle, a failure that may
    have worked, no or impossible `usage`), the bound, marked inexact. Nothing is retried here.

    Args:
      model: its name on the server. Costs are booked under the name that requests have.
      base_url: up to and including `/v1`. api_key: "" sends none.
      can: what the server can do (`PRESETS` has some), instead of a probe.
      api: "chat" or "completions"; None leaves it to the probe.
      tokenizer: path of the model's tokenizer.json: tighter bounds of prompts.
      concurrency: requests in flight at once.
      clock, now: seconds, monotonic and since 1970; for tests.
    """

    stepped = False

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str = "",
        can: Abilities | None = None,
        api: Literal["chat", "completions"] | None = None,
        tokenizer: str | Path | None = None,
        timeouts: Timeouts | None = None,
        concurrency: int = 32,
        proxies: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        if concurrency < 1:
            raise InvalidInput(f"concurrency={concurrency}: at least one request must be possible")
        self.model, self.concurrency, self.api = model, concurrency, api
        self._place = Place(base_url, model, api_key)
        self._connection = Connection(
            base_url=base_url,
            api_key=api_key,
            timeouts=timeouts or Timeouts(),
            concurrency=concurrency,
            proxies=proxies,
        )
        self._clock, self._now = clock, now
        self._tokens = tokenizer_counter(tokenizer) if tokenizer is not None else None
        self._flights: dict[int, _Flight] = {}
        self._patience = Patience()
        self._post: Callable[[Sequence[Item]], None] = lambda items: None
        self._probing: asyncio.Task[Probed] | None = None
        self.probed: Probed | None = None
        self._counter = PromptCounter(overhead=Abilities().overhead, tokenizer=self._tokens)
        if can is not None:
            self._learnt(Probed(can if api is None else replace(can, api=api)))
        weakref.finalize(self, self._connection.close)

    def probe(self) -> Probed:
        """Return what the server can do; asks it if that is not known yet. Raises Broken if it does not answer."""
        return self.probed or self._connection.wait_for(self._know)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server can do. While it does not answer: all that any server can, and the first request says why."""
        try:
            return self.probe().can.capabilities
        except Broken:
            every = Abilities(continues="flags", stop="keep", logprobs=True, seed=True, min_p=True)
            return every.capabilities

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        """Return calls, prompt (by what is known of it, see `PromptCounter`) and output (max_tokens, else the context).

        Raises Unsupported for what the server is known not to do, InvalidInput for an empty prompt, for max_tokens
        below 1, and where there is neither max_tokens nor a known context.
        """
        if not isinstance(request, Sample):
            raise Unsupported(f"an OpenAI-compatible server serves Sample, not {type(request).__name__}")
        if not request.prefix.text:
            raise InvalidInput("the prompt is empty; give the model something to continue")
        if request.max_tokens is not None and request.max_tokens < 1:
            raise InvalidInput(f"max_tokens={request.max_tokens}; servers generate at least one token")
        if self.probed is None and request.max_tokens is None:
            self.probe()
        if self.probed is not None:
            check(request, self.probed.can, place=self._place)
        prompt, output = self._counter.bound(request.prefix), request.max_tokens
        if output is None:
            context = self.probed.can.context if self.probed is not None else None
            if context is None:
                raise InvalidInput(self._place.tell("the server does not say its context length; give max_tokens"))
            output = context - prompt
            if output < 1:
                raise InvalidInput(f"a prompt of up to {prompt} tokens; {self.model} reads {context}; shorten it")
        return Cost.of(request.model, calls=1, prompt=prompt, output=output)

    def room(self) -> int:
        return max(0, self.concurrency - len(self._flights))

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        assert isinstance(request, Sample)
        flight = _Flight(ticket, request)
        self._flights[id(ticket)] = flight
        self._connection.soon(partial(self._begin, flight))

    def cancel(self, ticket: Ticket) -> None:
        flight = self._flights.get(id(ticket))
        if flight is not None:
            self._connection.soon(flight.cancel)

    def step(self) -> Sequence[Item]:
        return ()

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        self._post = post

    def close(self) -> None:
        self._connection.close()

    # From here on everything runs in the thread of the connection.

    def _begin(self, flight: _Flight) -> None:
        flight.task = asyncio.ensure_future(self._fly(flight))
        flight.task.add_done_callback(partial(self._land, flight))

    def _land(self, flight: _Flight, task: asyncio.Task[Settled]) -> None:
        """Report the end of a flight, whatever it was: this runs exactly once for each."""
        if task.cancelled():
            settled = self._failed(flight, Failure("cancelled"), spent=flight.sent)
        elif (error := task.exception()) is not None:
            settled = self._failed(flight, Failure(f"{type(error).__name__}: {error}"), spent=flight.sent)
        else:
            settled = task.result()
        del self._flights[id(flight.ticket)]
        self._post([settled])

    def _failed(self, flight: _Flight, failure: Failure, *, spent: bool) -> Settled:
        if not spent:
            return Settled(flight.ticket, None, Cost(), failure)
        cost, exact = self._cost(flight)
        return Settled(flight.ticket, None, cost, failure, exact)

    def _cost(self, flight: _Flight) -> tuple[Cost, bool]:
        """Return what a flight that was sent took, and whether the server said so."""
        answer, model, bound = flight.answer, flight.request.model, flight.ticket.bound
        if answer.ended or answer.reason is not None:  # after this nothing is generated
            return served(answer.usage, model=model, bound=bound, text=answer.text)
        grace = self.probed.can.grace if self.probed is not None else None
        return seen(answer.text, answer.usage, model=model, bound=bound, grace=grace), False

    async def _fly(self, flight: _Flight) -> Settled:
        try:
            can = (await self._know()).can
            check(flight.request, can, place=self._place)
            await asyncio.sleep(max(0.0, self._patience.until - self._clock()))
            request = flight.request
            output = flight.ticket.bound.total("output") if request.max_tokens is None else request.max_tokens
            sent = body(request, model=self.model, can=can, max_tokens=output)
            flight.sent = True
            draft = await follow(
                self._connection.post(PATHS[can.api], sent, place=self._place, now=self._now()),
                request=request,
                answer=flight.answer,
                can=can,
                place=self._place,
                show=lambda text: self._post([Progress(flight.ticket, text)]) if flight.ticket.watched else None,
            )
        except Unsupported as error:
            return self._failed(flight, Failure(str(error)), spent=flight.sent)
        except Broken as broken:
            failure = self._patience.failed(broken, clock=self._clock())
            return self._failed(flight, failure, spent=broken.spent and flight.sent)
        self._patience.worked()
        cost, exact = self._cost(flight)
        if exact:
            self._counter.learn(flight.request.prefix, cost.total("prompt"))
        return Settled(flight.ticket, draft, cost, None, exact)

    async def _know(self) -> Probed:
        """Return what the server can do; whoever comes first asks, the others wait for the same answer."""
        if self.probed is None:
            if self._probing is None:
                self._probing = asyncio.ensure_future(self._ask_around())
                self._probing.add_done_callback(self._asked)
            await asyncio.shield(self._probing)
        assert self.probed is not None
        return self.probed

    async def _ask_around(self) -> Probed:
        async def ask(api: str, sent: dict[str, Any]) -> Answer:
            return await whole(
                self._connection.post(PATHS[api], sent, place=self._place, now=self._now()), place=self._place
            )

        found = await probe(ask, model=self.model, api=self.api, listing=self._connection.listing, tokens=self._tokens)
        self._learnt(found)
        return found

    def _asked(self, task: asyncio.Task[Probed]) -> None:
        self._probing = None
        if not task.cancelled():
            task.exception()  # whoever waited has it

    def _learnt(self, found: Probed) -> None:
        self.probed = found
        self._counter.overhead = found.can.overhead


class _Flight:
    """A request on its way."""

    __slots__ = ("answer", "request", "sent", "task", "ticket")

    def __init__(self, ticket: Ticket, request: Sample) -> None:
        self.ticket, self.request = ticket, request
        self.answer, self.sent = Answer(), False
        self.task: asyncio.Task[Settled] | None = None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
