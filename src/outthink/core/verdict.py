"""What verifiers say, and what is searched and judged: the protocols above the runtime."""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
S_contra = TypeVar("S_contra", contravariant=True)
Answer = str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked. Never the reference answer: grading lives in tasks, and a verifier built from it is an oracle."""

    id: str
    prompt: str
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a state is. `error`, `infeasible` and `unparsed` are statuses, never scores; `note` is the reason."""

    value: float
    status: Literal["ok", "error", "infeasible", "unparsed"] = "ok"
    note: str = ""

    def __float__(self) -> float:
        return self.value


class Space(Protocol[S]):
    """What may be searched. States are immutable and hashable: values and Refs."""

    @property
    def forks(self) -> bool:
        """Whether one state may be expanded more than once."""
        ...

    async def root(self, seed: int) -> S:
        """Return the state to start from."""
        ...

    async def expand(self, state: S, n: int, seed: int) -> Sequence[S]:
        """Return at most `n` children of `state`: as many as the budget paid for, in the order of their seeds."""
        ...

    def is_done(self, state: S) -> bool:
        """Whether nothing can be added to `state`."""
        ...

    def answer(self, state: S) -> Answer | None:
        """Return the canonical answer of `state`, None where it has none. Pure."""
        ...


class Verifier(Protocol[S_contra]):
    """How good: one verdict per state, in order; of no states an empty list."""

    @property
    def scale(self) -> Literal["probability", "real"]:
        """What its values are; a method that needs probabilities says so."""
        ...

    @property
    def oracle(self) -> bool:
        """Whether it was built from the reference answer; the Run says so."""
        ...

    def __call__(self, states: Sequence[S_contra], *, seed: int) -> Awaitable[Sequence[Verdict]]: ...


class Preference(Protocol[S_contra]):
    """The probability that `a` is better than `b`."""

    def __call__(self, a: S_contra, b: S_contra, *, seed: int) -> Awaitable[float]: ...
