"""The toy world in characters: what may be written next, how likely, and how a reward model sees it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import exp, log

from ..core.request import Sample
from .toy_process import HACKED, ON_TRACK, SYMBOLS, World, clipped_logit, gauss, key_of, success_of

IMPOSSIBLE = -100.0
"""Log-probability of a token that the process never writes (a forced one)."""


class Writer:
    """Where a text stands in the process: feed it tokens, ask for the next ones.

    Lines that are no step (a forced "wait") leave the state as it was; whatever follows the answer is ignored.
    """

    __slots__ = ("ends", "line", "p", "prompt", "right", "state", "steps", "world", "wrong")

    def __init__(self, world: World, prompt: str, text: str = "") -> None:
        self.world, self.prompt, self.p = world, prompt, success_of(prompt, world)
        self.right, self.wrong = key_of(prompt)
        self.steps, self.state, self.line = 0, ON_TRACK, ""
        self.ends = world.ends(ON_TRACK)
        for char in text:
            self.feed(char)

    def feed(self, char: str) -> None:
        """Go on by one token."""
        if not self.line and char in SYMBOLS and self.steps < self.world.steps:
            self.state, self.steps = SYMBOLS.index(char), self.steps + 1
            self.ends = self.world.ends(self.state)
        self.line = "" if char == "\n" else self.line + char

    @property
    def answer(self) -> str | None:
        """The complete answer, None before it is there."""
        return self.line[2:] if self.line.startswith("# ") and len(self.line) == 4 else None

    def value(self) -> float:
        """Return the exact probability that this text leads to the right answer."""
        if self.answer is not None:
            return float(self.answer == self.right)
        return self.world.value(self.steps, self.state, self.p)

    def odds(self) -> Sequence[tuple[str, float]]:
        """Return the decisions open here with their probabilities; nothing when the solution is complete.

        Filler is no decision: inside a step line this is "go on" (an empty string) or its end.
        """
        line = self.line
        if not line:
            if self.steps == self.world.steps:
                return (("#", 1.0),)
            return tuple(zip(SYMBOLS, self.world.moves(self.state, self.p), strict=True))
        if line[0] == "#":
            return self._answer_odds(line)
        if line[0] not in SYMBOLS:
            return (("\n", 1.0),)
        end = self.ends[len(line) + 1] if len(line) + 1 < len(self.ends) else 1.0
        return (("\n", end), ("", 1.0 - end))

    def _answer_odds(self, line: str) -> Sequence[tuple[str, float]]:
        if len(line) == 1:
            return ((" ", 1.0),)
        options = ((self.right, 1.0),) if self.state == ON_TRACK else self.wrong
        left = [(a, w) for a, w in options if f"# {a}".startswith(line)]
        if len(line) >= 4 or not left:
            return ()
        odds: dict[str, float] = {}
        for a, w in left:
            odds[a[len(line) - 2]] = odds.get(a[len(line) - 2], 0.0) + w
        total = sum(odds.values())
        return tuple((char, w / total) for char, w in sorted(odds.items()))

    def next(self, rng: random.Random, settings: Sample) -> tuple[str, float] | None:
        """Draw the next token and its log-probability under the untouched process; None at the end."""
        odds = self.odds()
        if not odds:
            return None
        filler = odds[-1][0] == ""
        if filler:
            end = odds[0][1]
            if end < 1 and rng.random() >= end:
                return "0123456789"[int(rng.random() * 10)], log((1 - end) / 10)
            return "\n", log(end)
        chosen = pick(odds, rng, settings) if len(odds) > 1 else 0
        char, chance = odds[chosen]
        return char, log(chance)

    def logprob(self, char: str) -> float:
        """Return the log-probability that the process writes `char` next."""
        for option, chance in self.odds():
            if option == char or (option == "" and char.isdigit()):
                chance = chance / 10 if option == "" else chance
                return log(chance) if chance else IMPOSSIBLE
        return IMPOSSIBLE


def pick(odds: Sequence[tuple[str, float]], rng: random.Random, settings: Sample) -> int:
    """Return the index of the option drawn at the request's temperature, top_p and min_p; ties at 0: the first."""
    best = max(range(len(odds)), key=lambda i: odds[i][1])
    if settings.temperature == 0:
        return best
    top = odds[best][1]
    weights = [exp(log(x / top) / settings.temperature) if x else 0.0 for _, x in odds]
    if settings.top_p < 1:
        kept, mass, total = set[int](), 0.0, sum(weights)
        for i in sorted(range(len(weights)), key=lambda i: -weights[i]):
            if mass < settings.top_p * total:
                kept.add(i)
                mass += weights[i]
        weights = [w if i in kept else 0.0 for i, w in enumerate(weights)]
    weights = [w if w >= settings.min_p else 0.0 for w in weights]
    mark = rng.random() * sum(weights)
    for i, w in enumerate(weights):
        mark -= w
        if w and mark < 0:
            return i
    return best


def rewards(world: World, prompt: str, text: str, marks: Sequence[int]) -> list[float]:
    """Return the reward model's probability at each position of `text` in `marks` (rising; number of tokens read).

    Style is a sum over the lines so far, so siblings share their parents'; noise is fresh at every position.
    """
    writer, style, out, read = Writer(world, prompt), 0.0, [], 0
    settled = 0
    for mark in marks:
        for position in range(read, mark):
            writer.feed(text[position])
            if text[position] == "\n":
                style += world.style * gauss("style", prompt, text[settled : position + 1], settled)
                settled = position + 1
        read = mark
        logit = world.sharpness * clipped_logit(writer.value())
        if writer.state == HACKED:
            logit = world.hack
        logit += style + world.noise * gauss("noise", prompt, text[:mark])
        out.append(1 / (1 + exp(-logit)))
    return out
