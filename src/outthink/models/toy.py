"""A model of closed forms behind the real port: steps at a time, seeded, exact to the token."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.backend import Failure, Item, Paused, Progress, Settled, Ticket
from ..core.budget import Card
from ..core.cost import Cost
from ..core.errors import InvalidInput, Unsupported, unknown
from ..core.monitor import Force, Halt
from ..core.refs import Prefix, nearest
from ..core.request import Draft, Request, Sample, Score, Scored
from ..core.seeds import fold
from ..core.verdict import Problem
from .toy_process import BINS, World, key_of
from .toy_text import Writer, rewards

WORLDS: Mapping[str, World] = {
    "toy/t1": World(),
    "toy/hackable": World(q=0.001),
    "toy/perfect": World(sharpness=1.0, noise=0.0, style=0.0),
    "toy/blind": World(sharpness=0.0, noise=1.0),
    "toy/longer": World(steps=1, p=0.5, rho=0.0, tokens=16, spread=0.4, wrong=2.0),
    "toy/shorter": World(steps=1, p=0.5, rho=0.0, tokens=16, spread=0.4, wrong=0.5),
    "toy/lengths": World(steps=4, tokens=8, spread=0.3, wrong=1.5),
}
"""Named worlds. `longer`: wrong solutions are longer, so the first to finish is mostly right; `shorter`: not so."""

CARD = Card(prices={"prompt": 100_000, "output": 400_000}, params=1_000_000, attention=64)
"""An invented price card, so that budgets in dollars and FLOPs can be tried."""


class Toy:
    """Serves `Sample` and `Score` from one `World`; one character is one token.

    name: the model name that costs are booked under.
    slots: how many requests it works on at once; speed: tokens per sequence and step; latency: steps before the first.
    context: the longest text, prompt included, that it reads. pause: whether it can be paid in slices.
    A token takes one byte of keys and values; what requests share is counted with each of them.
    """

    stepped = True

    def __init__(
        self, world: World, *, name: str = "toy/t1", slots: int = 256, speed: int = 8, latency: int = 0,
        context: int = 4096, pause: bool = True,
    ) -> None:  # fmt: skip
        self.world, self.name, self.slots, self.speed, self.latency, self.context = (
            world, name, slots, speed, latency, context
        )  # fmt: skip
        can = "sample continue score prefix seed stop logprobs monitor force" + " pause" * pause
        self.capabilities = frozenset(can.split())
        self.live: dict[Ticket, _Live] = {}
        self.paused: dict[Ticket, _Live] = {}
        self.ended: list[Item] = []

    def bound(self, ticket: Ticket, request: Request[Any]) -> Cost:
        if not isinstance(request, Sample | Score):
            raise Unsupported(f"the toy serves Sample and Score, not {type(request).__name__}")
        if isinstance(request, Sample) and request.hidden:
            raise Unsupported("the toy has no hidden states; the engine has (models named engine/PATH)")
        start = nearest(request.prefix, ticket.held)
        new = sum(len(node.piece) for node in _until(request.prefix, start))
        total = new + sum(len(node.piece) for node in start.ancestors()) if start is not None else new
        if isinstance(request, Score):
            return Cost.of(self.name, calls=1, scores=1, prompt=new, attended=_attended(total - new, new))
        if request.max_tokens is not None and request.max_tokens < 0:
            raise InvalidInput(f"max_tokens={request.max_tokens}; it is zero or more, or None for what is left")
        if total > self.context:
            raise InvalidInput(f"a text of {total} tokens; the toy reads at most {self.context}")
        most = self.most(request, total)
        return Cost.of(self.name, calls=1, prompt=new, output=most, attended=_attended(total - new, new + most))

    def most(self, request: Sample, total: int) -> int:
        """Return the most tokens that `request` may write after a prefix of `total` tokens."""
        return min(self.context - total, self.context if request.max_tokens is None else request.max_tokens)

    def room(self) -> int:
        return max(self.slots - len(self.live), 0)

    def submit(self, ticket: Ticket, request: Request[Any]) -> None:
        self.live[ticket] = _Live(self, ticket, request)

    def resume(self, ticket: Ticket, request: Request[Any]) -> None:
        live = self.live[ticket] = self.paused.pop(ticket)
        live.request = request

    def cancel(self, ticket: Ticket) -> None:
        live = self.live.pop(ticket, None) or self.paused.pop(ticket, None)
        if live is not None:
            self.ended.append(Settled(ticket, None, live.cost(), Failure("cancelled"), kv=live.kv))

    def step(self) -> Sequence[Item]:
        out, self.ended = self.ended, []
        ends: list[tuple[Ticket, _Live, Any]] = []
        for ticket, live in self.live.items():
            if live.wait > 0:
                live.wait -= 1
                continue
            before = len(live.text)
            reply = live.score() if isinstance(live.request, Score) else live.write(self.speed)
            if len(live.text) > before and ticket.watched:
                out.append(Progress(ticket, live.text[before:]))
            if reply is not None or live.spent():
                ends.append((ticket, live, reply))
        self._weigh()
        for ticket, live, reply in ends:
            del self.live[ticket]
            if reply is None:
                self.paused[ticket] = live
                out.append(Paused(ticket))
            else:
                out.append(Settled(ticket, reply, live.cost(), kv=live.kv))
        return out

    def _weigh(self) -> None:
        everybody = (*self.live.values(), *self.paused.values())
        held: dict[Any, int] = {}
        for live in everybody:
            run = live.ticket.run
            held[run] = held.get(run, 0) + live.total + live.paid
        for live in everybody:
            live.kv = max(live.kv, held[live.ticket.run])

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        """Nothing to keep: everything is reported by `step`."""

    def close(self) -> None:
        self.live.clear()
        self.paused.clear()
        self.ended.clear()


class _Live:
    """One request at work."""

    __slots__ = (
        "kv", "logprobs", "memory", "owner", "paid", "pending", "request", "rng", "text", "ticket", "total", "wait",
        "writer",
    )  # fmt: skip

    def __init__(self, owner: Toy, ticket: Ticket, request: Any) -> None:
        self.owner, self.ticket, self.request, self.wait = owner, ticket, request, owner.latency
        self.text, self.paid, self.pending, self.kv = "", 0, "", 0
        self.total = len(request.prefix.text)
        self.logprobs: list[float] = []
        prompt, *pieces = (node.piece for node in request.prefix.chain())
        written = "".join(pieces)
        self.writer = Writer(owner.world, prompt, written)
        if isinstance(request, Sample):
            greedy = request.temperature == 0  # then the seed may not matter: lengths and filler are the text's own
            self.rng = random.Random(fold(0 if greedy else request.seed, "toy", prompt, written))
            self.memory = request.monitor.start() if request.monitor is not None else None

    def cost(self) -> Cost:
        """Return what it took so far: the prompt that was reserved, and what was generated."""
        units = self.ticket.bound.counts[self.owner.name]
        prompt = units.get("prompt", 0)
        if isinstance(self.request, Score):
            return Cost.of(self.owner.name, calls=1, scores=1, prompt=prompt, attended=units["attended"])
        attended = _attended(self.total - prompt, prompt + self.paid)
        return Cost.of(self.owner.name, calls=1, prompt=prompt, output=self.paid, attended=attended)

    def spent(self) -> bool:
        """Whether all that has been paid for is written."""
        return self.paid >= self.ticket.bound.counts[self.owner.name].get("output", 0)

    def write(self, tokens: int) -> Draft | None:
        """Write at most `tokens` more, and no more than is paid for; return the draft when it has ended."""
        request = self.request
        most = self.owner.most(request, self.total)
        for _ in range(tokens):
            if self.paid >= most:
                return self.draft("length")
            if self.spent():
                return None
            if self.pending:
                char, chance = self.pending[0], self.writer.logprob(self.pending[0])
                self.pending = self.pending[1:]
            else:
                drawn = self.writer.next(self.rng, request)
                if drawn is None:
                    return self.draft("end")
                char, chance = drawn
            self.writer.feed(char)
            self.text += char
            self.paid += 1
            self.logprobs.append(chance)
            stop = next((s for s in request.stop if s and self.text.endswith(s)), None)
            if stop is not None:
                return self.draft("stop", stop)
            if request.monitor is not None:
                self.memory, action = request.monitor.step(self.memory, char, chance)
                if isinstance(action, Halt):
                    keep = max(len(self.text) - action.back, 0)
                    self.text, self.logprobs = self.text[:keep], self.logprobs[:keep]
                    return self.draft("monitor")
                if isinstance(action, Force):
                    self.pending = action.text
        if self.paid >= most:
            return self.draft("length")
        return self.draft("end") if not self.pending and not self.writer.odds() else None

    def draft(self, finish: Any, stop: str | None = None) -> Draft:
        tokens = tuple(map(ord, self.text))
        prefix = self.request.prefix.extend(self.text, tokens=tokens, vocabulary="toy")
        chances = tuple(self.logprobs) if self.request.logprobs else None
        return Draft(self.text, finish, prefix, tokens, stop, chances, memory=self.memory)

    def score(self) -> Scored:
        """Score at once: a toy reward model reads everything in one step."""
        prefix: Prefix = self.request.prefix
        prompt, *pieces = (node.piece for node in prefix.chain())
        text = "".join(pieces)
        if self.request.of == "logprob":
            last = pieces[-1] if pieces else ""
            writer, total = Writer(self.owner.world, prompt, text[: len(text) - len(last)]), 0.0
            for char in last:
                total += writer.logprob(char)
                writer.feed(char)
            return Scored(total)
        marks = [m.end() for m in re.finditer(re.escape(self.request.step), text)] if self.request.step else []
        if not marks or marks[-1] != len(text):
            marks.append(len(text))
        values = rewards(self.owner.world, prompt, text, marks)
        return Scored(values[-1], tuple(values) if self.request.step and text else ())


def toy_backend(name: str, **knobs: Any) -> Toy:
    """Return the backend of a named world; knobs of `World` (p, steps) and of `Toy` (slots, speed) overrule it."""
    if name not in WORLDS:
        raise unknown("toy model", name, WORLDS)
    world = {k: knobs.pop(k) for k in list(knobs) if k in World.__dataclass_fields__}
    return Toy(replace(WORLDS[name], **world), name=name, **knobs)


def toy_problems(n: int, *, bins: Sequence[float] = BINS, seed: int = 0) -> list[Problem]:
    """Return `n` problems whose step success goes round through `bins`; of 0 an empty list."""
    chances = [bins[i % len(bins)] for i in range(n)]
    ids = [f"toy-{seed}-{i:04d}" for i in range(n)]
    return [Problem(id, f"{id} p={p}\n", {"p": p}) for id, p in zip(ids, chances, strict=True)]


def toy_key(problem: Problem) -> str:
    """Return the right answer: for graders and oracles, not for methods."""
    return key_of(problem.prompt)[0]


def toy_answer(text: str) -> str | None:
    """Return the answer of a complete solution, None without one."""
    match = re.search(r"(?:^|\n)# (\d\d)\s*$", text)
    return match.group(1) if match else None


def _until(prefix: Prefix, end: Prefix | None) -> Sequence[Prefix]:
    out: list[Prefix] = []
    for node in prefix.ancestors():
        if node is end:
            break
        out.append(node)
    return out


def _attended(context: int, positions: int) -> int:
    """Return the sum of context lengths over `positions` new tokens after `context` of them."""
    return positions * context + positions * (positions + 1) // 2
