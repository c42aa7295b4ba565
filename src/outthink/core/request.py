"""The only way to spend: requests, and the replies to them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from .monitor import Monitor
from .refs import Prefix, Ref

R = TypeVar("R")


class Request(Generic[R]):
    """Work for a backend: frozen, hashable, names its model. `await request` gives the reply.

    Outside a runtime nobody answers: asyncio then says "Task got bad yield". Use `outthink.solve` or `Runtime.run`.
    """

    __slots__ = ()
    model: str

    def __await__(self) -> Generator[Request[R], R, R]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Draft:
    """Reply to `Sample`: `text` is exactly what `tokens` decode to, the matched stop string included.

    finish: "end" (the model ended its text), "stop" (a stop string, named in `stop`), "length" (max_tokens),
      "monitor" (a Monitor halted it).
    prefix: the request's prefix continued by this draft; continue from it and the backend need not read it again.
    logprobs: of each token under the sampling model before temperature and truncation, if asked for.
    hidden: a Ref to the last hidden states, if asked for.
    """

    text: str
    finish: Literal["end", "stop", "length", "monitor"]
    prefix: Prefix
    tokens: tuple[int, ...] | None = None
    stop: str | None = None
    logprobs: tuple[float, ...] | None = None
    hidden: Ref | None = None
    memory: Any = None


@dataclass(frozen=True, slots=True)
class Sample(Request[Draft]):
    """Continue `prefix` by at most `max_tokens` tokens.

    max_tokens: None means as many as the account and the model's context allow.
    at_least: the request may be clipped to no fewer tokens than this when the account cannot pay for `max_tokens`;
      None means it may not be clipped (with max_tokens=None: to 1).
    temperature 0 is greedy (ties: lowest token id); top_p and min_p truncate after temperature.
    stop: strings that end the draft (kept in its text).
    """

    prefix: Prefix
    model: str
    seed: int
    max_tokens: int | None = None
    at_least: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    hidden: bool = False
    monitor: Monitor | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Reply to `Score`: `value` at the end of the prefix; `steps` at the end of every step below its root."""

    value: float
    steps: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Score(Request[Scored]):
    """Judge `prefix` by a reward model (probability in [0, 1]), or its last piece by its log-probability (nats).

    step: with a delimiter, `Scored.steps` has one value after each occurrence below the root, and one for an
      unfinished last step.
    """

    prefix: Prefix
    model: str
    of: Literal["reward", "logprob"] = "reward"
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Embed(Request[tuple[float, ...]]):
    """The embedding of a text."""

    text: str
    model: str


@dataclass(frozen=True, slots=True)
class Denoise(Request[Ref]):
    """One prediction of a denoiser at `level` for `latent`; stepping with it is free, so K children cost one."""

    latent: Ref
    level: float
    model: str
    condition: Ref | None = None


@dataclass(frozen=True, slots=True)
class Act(Request[Any]):
    """A side effect in a session. Never retried; the session is closed when the coroutine that opened it ends."""

    session: Ref
    action: str
    model: str


@dataclass(frozen=True, slots=True)
class Call(Request[Any]):
    """A pure tool in a worker (tests, retrieval, a solver): `arguments` is JSON text, so that it can be hashed."""

    tool: str
    arguments: str
    model: str = "tools"


@dataclass(frozen=True, slots=True)
class Train(Request[Ref]):
    """Train `model` on `examples` by `recipe`; gives a checkpoint."""

    model: str
    examples: Ref
    recipe: str
    seed: int
