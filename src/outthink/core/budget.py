"""Budgets: a conjunction of linear limits on `Cost`, plus the gauges depth and seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, Overflow
from fractions import Fraction
from functools import cache

from .cost import UNITS, Cost
from .errors import InvalidInput, unknown

PICO = 10**12
"""Dollars are counted in whole picodollars: a token at $0.075 per million costs 75,000 of them, exactly."""

MOST = Decimal(10) ** 30
"""No amount in a budget is larger: whole numbers of a billion digits would keep the reader busy for ever."""

FREE = frozenset("calls cached attended recomputed scores tools kv_steps device_ns".split())
"""Units that a price card may leave out: they cost no money unless it says so."""

Weights = Callable[[str], Mapping[str, int]]
"""Model -> weight of each unit. An amount is the sum of weight times count: linear, integer, exact."""

Terms = tuple[tuple[str, int], ...]
"""Units of one model with their weights."""


@dataclass(frozen=True, slots=True)
class Card:
    """What one model's units are worth: `prices` in picodollars; FLOPs: 2 * params a token, attention a position."""

    prices: Mapping[str, int] | None = None
    params: int | None = None
    attention: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `cap` of `kind`: "tokens", "dollars" (picodollars), "flops" or the name of a unit."""

    kind: str
    cap: int

    def __str__(self) -> str:
        if self.kind == "dollars":
            return f"${Decimal(self.cap) / PICO:f}"
        word = f"{self.kind} tokens" if self.kind in ("output", "prompt", "cached") else self.kind
        if self.cap >= 10**9 and self.cap % 10**7 == 0:
            return f"{Decimal(self.cap).normalize():e} {word}".replace("e+", "e")
        if self.cap and self.cap % 1000 == 0:
            scale, letter = (10**6, "M") if self.cap % 10**6 == 0 else (1000, "k")
            return f"{self.cap // scale}{letter} {word}"
        return f"{self.cap} {word}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent. `Budget()` is no limit; `depth` limits chains of awaited requests, `seconds` is soft."""

    limits: tuple[Limit, ...] = ()
    depth: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | int | Budget) -> Budget:
        """Return the budget that `text` names.

        "20k tokens", "40 output tokens", "$0.05, 30 s", "2e12 flops", "100 calls", "12 depth"; parts are joined by
        commas, a bare number means tokens. Raises InvalidInput for what cannot be read, a unit that is not known
        (with the closest match), a negative amount or a unit named twice.
        """
        if isinstance(text, Budget):
            return text
        if str(text) == str(cls()):
            return cls()
        limits: list[Limit] = []
        gauges: dict[str, float] = {}
        for part in str(text).split(","):
            kind, amount = _part(part, str(text))
            if kind in gauges or any(limit.kind == kind for limit in limits):
                raise InvalidInput(f"budget {text!r} limits {kind} twice; name every unit once")
            if kind == "seconds":
                gauges[kind] = float(amount)
                continue
            scaled = amount * PICO if kind == "dollars" else amount
            if scaled != int(scaled):
                raise InvalidInput(f"budget {text!r}: {kind} must be a whole number, not {amount}")
            if kind == "depth":
                gauges[kind] = int(scaled)
            else:
                limits.append(Limit(kind, int(scaled)))
        depth = gauges.get("depth")
        return cls(tuple(limits), depth=None if depth is None else int(depth), seconds=gauges.get("seconds"))

    def cap(self, kind: str) -> int | None:
        """Return the cap of `kind`, None where it is not limited."""
        return next((limit.cap for limit in self.limits if limit.kind == kind), None)

    def __str__(self) -> str:
        parts = [str(limit) for limit in self.limits]
        parts += [f"{self.depth} depth"] if self.depth is not None else []
        parts += [f"{repr(self.seconds).removesuffix('.0')} s"] if self.seconds is not None else []
        return ", ".join(parts) or "no limit"


_PART = re.compile(r"(\$?)\s*([-+]?[\d_.]+(?:e[-+]?\d+)?)\s*([kKM](?![A-Za-z]))?\s*([A-Za-z_ ]*)")
_WORDS = {
    "": "tokens", "token": "tokens", "output tokens": "output", "prompt tokens": "prompt", "cached tokens": "cached",
    "output token": "output", "prompt token": "prompt", "s": "seconds", "sec": "seconds", "second": "seconds",
    "min": "minutes", "minute": "minutes", "dollar": "dollars", "flop": "flops", "call": "calls", "score": "scores",
    "tool": "tools", "image": "images", "prediction": "predictions",
}  # fmt: skip
_KINDS = ("tokens", "dollars", "flops", "depth", "seconds", "minutes", *UNITS)


def _part(part: str, whole: str) -> tuple[str, Decimal]:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise InvalidInput(f"budget {whole!r}: cannot read {part.strip()!r}; write '20k tokens', '$0.05' or '30 s'")
    dollars, number, suffix, word = match.groups()
    try:
        amount = Decimal(number.replace("_", "")) * {None: 1, "k": 1000, "K": 1000, "M": 10**6}[suffix]
    except (InvalidOperation, Overflow):
        raise InvalidInput(f"budget {whole!r}: {number!r} is not a number") from None
    word = " ".join(word.lower().split())
    kind = "dollars" if dollars else _WORDS.get(word, word)
    if kind not in _KINDS or (dollars and word):
        raise unknown("unit", f"$ {word}" if dollars else word, _KINDS)
    if amount > MOST:
        raise InvalidInput(f"budget {whole!r}: {part.strip()!r} is more than anybody has; the most is {MOST:.0e}")
    if amount < 0:
        raise InvalidInput(f"budget {whole!r}: {part.strip()!r} is negative; a budget is zero or more")
    return ("seconds", amount * 60) if kind == "minutes" else (kind, amount)


def weights(kind: str, cards: Mapping[str, Card]) -> Weights:
    """Return what each unit of a model weighs in a limit of `kind`.

    Raises InvalidInput (when a model is first met, before anything is spent) if money or FLOPs are limited and the
    model's card does not say them: an unknown price is not zero.
    """

    @cache
    def of(model: str) -> Mapping[str, int]:
        card = cards.get(model, Card())
        if kind == "tokens":
            return {"prompt": 1, "output": 1}
        if kind == "flops":
            if card.params is None:
                raise InvalidInput(f"a FLOPs budget needs the size of model {model!r}; give Card(params=...)")
            return {u: 2 * card.params for u in ("prompt", "output")} | {"attended": card.attention}
        if kind == "dollars":
            if card.prices is None:
                raise InvalidInput(f"a dollar budget needs the prices of model {model!r}; give Card(prices=...)")
            return dict(card.prices)
        return {kind: 1}

    return of


@dataclass(frozen=True, slots=True)
class Meter:
    """One kind of limit, ready to measure costs."""

    kind: str
    weights: Weights = field(compare=False, repr=False)

    def terms(self, model: str, units: Mapping[str, int]) -> Terms:
        """Return which of the units of a cost count here, and what they weigh."""
        of = self.weights(model)
        for unit, n in units.items():
            if self.kind == "dollars" and n and unit not in of and unit not in FREE:
                raise InvalidInput(f"no price for {unit} of model {model!r}; add it to its card")
        return tuple([(unit, of[unit]) for unit in units if unit in of])

    def amount(self, cost: Cost) -> int:
        """Return how much of the limit `cost` uses."""
        counts = cost.counts.items()
        return sum(units[unit] * weight for model, units in counts for unit, weight in self.terms(model, units))


@dataclass(frozen=True, slots=True)
class Left:
    """What the nearest account can still spend: (meter, amount) for each of its limits; none means unlimited."""

    amounts: tuple[tuple[Meter, int], ...]

    def times(self, cost: Cost) -> int | None:
        """Return how many times `cost` can still be paid, None if nothing limits it."""
        needs = [(max(left, 0), meter.amount(cost)) for meter, left in self.amounts]
        return min((left // need for left, need in needs if need), default=None)

    def of(self, kind: str) -> int | None:
        """Return what is left of `kind`, None where it is not limited."""
        return next((left for meter, left in self.amounts if meter.kind == kind), None)

    def share(self, part: float | Fraction) -> Budget:
        """Return a budget of this part of every limit, rounded down; `part` is between 0 and 1."""
        if not 0 <= part <= 1:
            raise InvalidInput(f"share({part}): a share is between 0 and 1")
        exact = Fraction(part)  # products with floats would be off where amounts are larger than 2**53
        return Budget(tuple(Limit(meter.kind, max(0, int(left * exact))) for meter, left in self.amounts))

    @property
    def budget(self) -> Budget:
        return self.share(1)
