"""The toy world on paper: a process of steps whose value, coverage and lengths have closed forms.

A solution is `steps` lines and an answer line. Every line is in one state: on track, derailed or hacked (wrong, but the
reward model likes it). One token is one character. Lines look like this, whatever the length of their filler:

    +40213     a step that is on track        -88120     derailed        !02311     hacked
    # 42       the answer: right if and only if the last step is on track

Source: the analytic step process on which step-wise searches are compared (on track stays on track with probability p,
derailed recovers with rho, anything is hacked with q; reward logit = sharpness * logit(value) + style + noise).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from math import log
from statistics import NormalDist

from ..core.errors import InvalidInput
from ..core.seeds import fold

DERAILED, ON_TRACK, HACKED = range(3)
SYMBOLS = "-+!"
BINS = (0.97, 0.9, 0.8, 0.65, 0.5)
"""Step success of five difficulties, from easy to hard."""
_NORMAL = NormalDist()
_CLIP = 0.01


@dataclass(frozen=True, slots=True)
class World:
    """The knobs of the process.

    steps, p, rho, q: see the module; `p` may be overruled by a problem ("p=0.65" in its prompt).
    tokens: median length of a step line in tokens, symbol and newline included, at least 2.
    spread: standard deviation of the log of that length (0: every line has exactly `tokens`).
    wrong: factor on the median length of lines that are not on track (over 1: wrong solutions are longer).
    sharpness, noise, style, hack: the reward model's dial: its logit is sharpness * logit(value) (a constant `hack` in
      the hacked state) + style, a random walk over steps with deviation `style` that children inherit, + fresh noise.
    """

    steps: int = 8
    p: float = 0.8
    rho: float = 0.04
    q: float = 0.0
    tokens: int = 8
    spread: float = 0.0
    wrong: float = 1.0
    sharpness: float = 0.5
    noise: float = 0.8
    style: float = 0.1
    hack: float = 1.3

    def __post_init__(self) -> None:
        if self.steps < 1 or self.tokens < 2 or not all(0 <= x <= 1 for x in (self.p, self.rho, self.q)):
            raise InvalidInput(f"{self}: steps >= 1, tokens >= 2, and p, rho, q between 0 and 1")

    def moves(self, state: int, p: float) -> tuple[float, float, float]:
        """Return the probabilities that the next step is derailed, on track, hacked."""
        if state == HACKED:
            return 0.0, 0.0, 1.0
        on = (p if state == ON_TRACK else self.rho) * (1 - self.q)
        return 1 - self.q - on, on, self.q

    def value(self, done: int, state: int, p: float) -> float:
        """Return the exact probability of a right answer when `done` steps are written and the last is in `state`."""
        return _values(self, p)[done][state]

    def pass_at_1(self, p: float) -> float:
        """Return the probability that one sample is right."""
        return self.value(0, ON_TRACK, p)

    def coverage(self, p: float, n: int) -> float:
        """Return the probability that at least one of `n` independent samples is right; 0 of none."""
        return 1 - (1 - self.pass_at_1(p)) ** n

    def ends(self, state: int) -> tuple[float, ...]:
        """Return h with h[k] = P(a line in `state` has exactly k tokens, given that it has at least k)."""
        return _ends(self, state == ON_TRACK)

    def lengths(self, p: float) -> tuple[list[float], list[float]]:
        """Return (wrong, right): the probability of each total number of tokens of a complete solution, jointly."""
        return _lengths(self, p)

    def mean_tokens(self, p: float) -> float:
        """Return the expected number of tokens of a complete solution, answer line included."""
        return sum(n * (w + r) for n, (w, r) in enumerate(zip(*self.lengths(p), strict=True)))

    def first_finish(self, p: float, n: int) -> float:
        """Return P(the shortest of `n` >= 1 independent samples is right); ties do not look at the answer."""
        wrong, right = self.lengths(p)
        beyond, out = 1.0, 0.0
        for w, r in zip(wrong, right, strict=True):
            if w + r:
                out += (beyond**n - max(beyond - w - r, 0.0) ** n) * r / (w + r)
                beyond = max(beyond - w - r, 0.0)
        return out

    @property
    def longest(self) -> int:
        """The most tokens that a complete solution can have."""
        return self.steps * max(len(self.ends(ON_TRACK)), len(self.ends(DERAILED))) - self.steps + len("# 42")


@lru_cache(maxsize=256)
def _values(world: World, p: float) -> tuple[tuple[float, ...], ...]:
    rows: list[tuple[float, ...]] = [(0.0, 1.0, 0.0)]
    for _ in range(world.steps):
        after = rows[-1]
        rows.append(tuple(sum(m * v for m, v in zip(world.moves(s, p), after, strict=True)) for s in range(3)))
    return tuple(reversed(rows))


@lru_cache(maxsize=256)
def _ends(world: World, right: bool) -> tuple[float, ...]:
    median = world.tokens * (1.0 if right else world.wrong)
    if not world.spread:
        return (0.0,) * max(2, round(median)) + (1.0,)
    cap = max(3, round(median * 2.718281828 ** (4 * world.spread)))
    below = [_NORMAL.cdf(log((k + 0.5) / median) / world.spread) for k in range(1, cap)]  # P(length <= k), k = 1 ...
    ends = [0.0, 0.0]
    for k in range(2, cap):
        before = below[k - 2] if k > 2 else 0.0
        ends.append((below[k - 1] - before) / (1 - before))
    return (*ends, 1.0)


@lru_cache(maxsize=64)
def _lengths(world: World, p: float) -> tuple[list[float], list[float]]:
    def masses(state: int) -> list[float]:
        alive, out = 1.0, []
        for h in world.ends(state):
            out.append(alive * h)
            alive *= 1 - h
        return out

    line = [masses(s) for s in range(3)]
    now: list[list[float]] = [[], [1.0], []]
    for _ in range(world.steps):
        after = [[0.0] * (world.longest + 1) for _ in range(3)]
        for s, mass in enumerate(now):
            for s2, move in enumerate(world.moves(s, p)):
                for n, m in enumerate(mass):
                    if m and move:
                        for k, x in enumerate(line[s2]):
                            if x:
                                after[s2][n + k] += m * move * x
        now = after
    tail = [0.0] * len("# 42")
    wrong = [a + b for a, b in zip(now[DERAILED], now[HACKED], strict=True)]
    return tail + wrong, tail + now[ON_TRACK]


@lru_cache(maxsize=4096)
def key_of(prompt: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Return the right answer to `prompt` and the wrong ones with their weights (Dirichlet 1/2: majority may fail)."""
    rng = random.Random(fold(0, "toy answers", prompt))
    right, *wrong = rng.sample(range(10, 100), 7)
    draws = [rng.gammavariate(0.5, 1.0) for _ in wrong]
    return str(right), tuple((str(a), w / sum(draws)) for a, w in zip(wrong, draws, strict=True))


def success_of(prompt: str, world: World) -> float:
    """Return the step success of the problem: "p=0.65" in its prompt, else the world's."""
    match = re.search(r"\bp=(0?\.\d+|[01])\b", prompt)
    return float(match.group(1)) if match else world.p


def gauss(*place: object) -> float:
    """Return a standard normal number that depends on `place` only."""
    return _NORMAL.inv_cdf(min((fold(0, *place) + 0.5) / 2**63, 1 - 2**-53))


def clipped_logit(value: float) -> float:
    """Return the logit of `value` kept within [0.01, 0.99]: a reward model is never certain."""
    value = min(max(value, _CLIP), 1 - _CLIP)
    return log(value / (1 - value))
