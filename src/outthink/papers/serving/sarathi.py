"""SARATHI: prompts are read in chunks, and every chunk carries the decoding of the others along.

Paper: Agrawal, Panwar, Mohan, Kwatra, Gulavani, Ramjee 2023, "SARATHI: Efficient LLM Inference by Piggybacking Decodes
  with Chunked Prefills", arXiv:2308.16369; Agrawal et al. 2024, "Taming Throughput-Latency Tradeoff in LLM Inference
  with Sarathi-Serve", arXiv:2403.02310, whose scheduler with a token budget is the one built here.
Idea: a prompt that is read whole stops everybody else's text until it is done. Cut into chunks that share their steps
  with the tokens being decoded, it stops nobody for long; and a token that rides on a chunk costs little, as the
  weights are read for the chunk anyway.
Entry: scheduler of the engine, always on: `Engine(..., step_tokens=1024)` is the budget of a step. To measure against:
  `Engine(..., mixed=False)` reads prompts first and whole while rows wait; a `step_tokens` longer than any prompt lets
  whole prompts join (Orca's way). `serve` plays arrivals, `riding` measures what a token costs inside a chunk.
Recipe: engine.scheduler. Every step gives each row its token, and what is left of the budget (C, its chunk size, is
  here what is left) to the waiting prompts in the order of the policy. The paper's 512 is a good budget on its GPUs;
  the default here is 1024, as steps of small models on a CPU are short.
Spends: the same tokens through the model, in other steps. A chunk reads the keys and values of those before it again.
Stops: does not apply.
Needs: sample
Differs: prefixes are shared, so a chunk may be of a prompt that several wait for; what is in memory is found before
  chunks are cut. Chunks of several prompts may stand in one step. Under memory pressure rows give way by policy and go
  on later from what they have. The paper's argument for uniform batches, that they leave no bubbles in a pipeline of
  many GPUs, needs a pipeline and belongs to a simulator of clusters: it is not part of this engine nor of this claim.
Claim: beside prefill-first on the same engine and arrivals, the longest wait between two tokens of a text is shorter,
  at p99 over texts and at most, in tokens put through the model (none is longer than the budget) and in seconds;
  decoding a token beside a chunk takes less processor time than in a step without one; greedy texts are the same for
  every budget. The price, which is reported: what comes waits longer for its first token. At p99 over all gaps
  prefill-first may look better, as its waits are few and long.
Use it when: requests come while others are being answered, and their prompts are long: search and serving together.
Not when: all prompts are there at the start, or all that counts is the first token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import median

from ...core.errors import InvalidInput
from ...core.refs import Prefix
from ...core.request import Draft, Sample
from ...engine.engine import Engine
from ...engine.jobs import Finished

NEEDS = frozenset({"sample"})


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes when `at` tokens have gone through the model (or nothing else is to be done)."""

    at: float
    request: Sample


@dataclass(frozen=True, slots=True)
class Service:
    """What one request saw, by two clocks: (tokens put through the model, seconds).

    first: from its coming to its first token.  gaps: between each of its tokens and the next.
    """

    first: tuple[float, float]
    gaps: tuple[tuple[float, float], ...]
    text: str


@dataclass(frozen=True, slots=True)
class Played:
    """A run over all arrivals: what each saw, steps taken, tokens put through the model, tokens drawn, seconds."""

    services: tuple[Service, ...]
    steps: int
    computed: int
    drawn: int
    seconds: float

    def gap(self, share: float, *, clock: int) -> float:
        """Return the gap that a `share` of all gaps does not exceed (1: the longest); clock 0: tokens, 1: seconds."""
        return quantile([gap[clock] for service in self.services for gap in service.gaps], share)

    def longest(self, share: float, *, clock: int) -> float:
        """Return the same of the longest gap of each text that has one."""
        return quantile([max(gap[clock] for gap in one.gaps) for one in self.services if one.gaps], share)

    def first(self, share: float, *, clock: int) -> float:
        """Return the same of waits for the first token."""
        return quantile([service.first[clock] for service in self.services], share)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that a `share` of them does not exceed. Raises InvalidInput without any."""
    if not values:
        raise InvalidInput("no values; a quantile needs at least one")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def arrivals(requests: Sequence[Sample], *, every: float, seed: int) -> list[Arrival]:
    """Return requests that come as they like (Poisson), one in `every` tokens put through the model on average."""
    rng, at, out = Random(seed), 0.0, []
    for request in requests:
        out.append(Arrival(at, request))
        at += rng.expovariate(1.0 / every)
    return out


class _Seen:
    """Asked once when a text begins and after each of its tokens but the last: the place for a look at the clocks."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.asked


def serve(engine: Engine, coming: Sequence[Arrival], *, clock: Callable[[], float] = time.perf_counter) -> Played:
    """Play `coming` (in order of time) against an engine that serves nobody else."""
    seen = [_Seen() for _ in coming]
    marks: list[list[tuple[float, float]]] = [[] for _ in coming]
    ends: dict[object, Finished] = {}
    start, before, steps, sent = clock(), engine.computed, 0, 0
    while sent < len(coming) or len(engine):
        done = engine.computed - before
        while sent < len(coming) and (coming[sent].at <= done or not len(engine)):
            marks[sent].append((done, clock() - start))
            engine.submit(sent, coming[sent].request, allowed=seen[sent])
            sent += 1
        ended = [event for event in engine.step() if isinstance(event, Finished)]
        steps += 1
        now = (float(engine.computed - before), clock() - start)
        ends |= {event.key: event for event in ended}
        for i in range(sent):
            if len(marks[i]) < seen[i].asked or any(event.key == i for event in ended):
                marks[i].append(now)
    services = tuple(_service(mark, ends[i]) for i, mark in enumerate(marks))
    drawn = sum(end.generated for end in ends.values())
    return Played(services, steps, engine.computed - before, drawn, clock() - start)


def _service(marks: Sequence[tuple[float, float]], end: Finished) -> Service:
    """Return what was seen at `marks`: the coming, and every token."""
    assert len(marks) == 1 + end.generated and isinstance(end.reply, Draft)
    steps = [(late[0] - early[0], late[1] - early[1]) for early, late in pairwise(marks)]
    return Service(steps[0], tuple(steps[1:]), end.reply.text)


@dataclass(frozen=True, slots=True)
class Riding:
    """Median processor seconds of a step that decodes `rows` tokens, of one that reads a chunk, of one doing both."""

    rows: int
    alone: float
    chunk: float
    both: float

    @property
    def ratio(self) -> float:
        """What a token costs inside a chunk, of what it costs in a step of its own."""
        return (self.both - self.chunk) / self.alone


def riding(
    engine: Engine, prompts: Sequence[str], *, rows: int, clock: Callable[[], float] = time.process_time, seed: int = 0
) -> Riding:
    """Measure steps with `rows` texts decoding, each of `prompts` being read once beside them and once without.

    The prompts are chunks: unlike each other, of one length, and with the rows within the budget of a step.  The three
    kinds of steps take turns, so that whatever else the machine does falls on all of them.
    """
    empty = engine.twin()
    took: list[tuple[float, float, float]] = []

    def step(which: Engine) -> float:
        start = clock()
        which.step()
        return clock() - start

    for i in range(rows):
        engine.submit(i, Sample(Prefix(f"{i}"), "", seed + i, temperature=0.0))
    for _ in range(3):
        engine.step()
    for i, prompt in enumerate(prompts):
        request = Sample(Prefix(f"{i} {prompt}"), "", seed, 1)
        alone = step(engine)
        for one in (empty, engine):
            one.submit("chunk", request)
        took.append((alone, step(empty), step(engine)))
    for i in range(rows):
        engine.cancel(i)
    while len(engine):
        engine.step()
    return Riding(rows, *(median(column) for column in zip(*took, strict=True)))
