"""Countdown: reach a target from given numbers with + - * /, each number used at most once.

The verifier needs no answer key: it parses the expression (never evaluates it as code), and checks numbers and
value exactly.  Levels 1..4 have 3..6 numbers; every generated problem is solvable, by `solve`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from zlib import crc32

from outthink.tasks.word_splits import SPLITS

LEVELS = range(1, 5)
_MAX_LENGTH = 100
_TOKEN = re.compile(r"\s*(\d{1,6}|[-+*/()])", re.ASCII)


@dataclass(frozen=True, slots=True)
class CountdownProblem:
    """A problem without a reference answer: any expression that `check` accepts solves it."""

    id: str
    prompt: str
    numbers: tuple[int, ...]
    target: int
    level: int


def generate(split: str, level: int, *, count: int, seed: int) -> list[CountdownProblem]:
    """Return `count` solvable problems; the multiset of numbers decides, by a stable hash, to which split one belongs.

    The i-th problem depends only on (split, level, i, seed).  Ids are "split/level/i", "s<seed>" behind if not 0.
    """
    _check(split, level)
    if count < 0:
        raise ValueError(f"count is {count}; it must be 0 or more")
    return [_problem(split, level, index, seed) for index in range(count)]


def problems(split: str = "heldout", *, limit: int | None = None, seed: int = 0) -> list[CountdownProblem]:
    """Return `limit` problems (400 if None) of levels 1..4 in turn, so that any limit is balanced."""
    count = 400 if limit is None else limit
    if count < 0:
        raise ValueError(f"limit is {limit}; it must be 0 or more, or None for 400")
    _check(split, LEVELS[0])
    places = (divmod(index, len(LEVELS)) for index in range(count))
    return [_problem(split, LEVELS[level], index, seed) for index, level in places]


def answer_of(text: str) -> str | None:
    """Return the expression of the last line of a completion that is one, without spaces or "= value"; None if none.

    The order of operands is kept: two expressions are the same answer only if they are written alike.
    """
    for line in reversed(text.splitlines()):
        expression = "".join(line.removeprefix("#").split("=")[0].split())
        if value_of(expression) is not None:
            return expression
    return None


def grade(problem: CountdownProblem, answer: str | None) -> bool:
    """Return whether `answer` is an expression that solves the problem; None, no answer, is wrong."""
    return answer is not None and check(problem, answer)


def check(problem: CountdownProblem, expression: str) -> bool:
    """Return whether `expression` has exactly the target as value and uses each given number at most once.

    False too for anything that is not an expression of numbers, + - * / and parentheses.
    """
    if value_of(expression) != problem.target:
        return False
    used = Counter(int(number) for number in re.findall(r"[0-9]+", expression))
    return used <= Counter(problem.numbers)


def value_of(expression: str) -> Fraction | None:
    """Return the exact value of an expression; None if it is malformed, too long (over 100) or divides by zero.

    Grammar: sum of products of numbers and parentheses, left to right; no signs, no powers.
    """
    if len(expression) > _MAX_LENGTH:
        return None
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != "".join(expression.split()):
        return None
    try:
        value, at = _sum(tokens, 0)
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return value if at == len(tokens) else None


def solve(numbers: tuple[int, ...], target: int) -> str | None:
    """Return an expression that reaches `target` with whole positive numbers in between; None if there is none."""
    return _search([(number, str(number)) for number in numbers], target, set())


def _search(pool: list[tuple[int, str]], target: int, seen: set[tuple[int, ...]]) -> str | None:
    for value, text in pool:
        if value == target:
            return text
    key = tuple(sorted(value for value, _ in pool))
    if key in seen:
        return None
    seen.add(key)
    for i, (x, left) in enumerate(pool):
        for j, (y, right) in enumerate(pool):
            if i == j:
                continue
            rest = [item for k, item in enumerate(pool) if k not in (i, j)]
            for value, sign in _combinations(x, y):
                found = _search([*rest, (value, f"({left}{sign}{right})")], target, seen)
                if found:
                    return found
    return None


def _combinations(x: int, y: int) -> list[tuple[int, str]]:
    """Return the whole positive results of x and y, each unordered pair once for + and *."""
    results = [(x + y, "+"), (x * y, "*")] if x >= y else []
    if x > y:
        results.append((x - y, "-"))
    if y > 1 and x % y == 0:
        results.append((x // y, "/"))
    return results


def _sum(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at)
    while at < len(tokens) and tokens[at] in "+-":
        other, after = _product(tokens, at + 1)
        value, at = (value + other if tokens[at] == "+" else value - other), after
    return value, at


def _product(tokens: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _atom(tokens, at)
    while at < len(tokens) and tokens[at] in "*/":
        other, after = _atom(tokens, at + 1)
        value, at = (value * other if tokens[at] == "*" else value / other), after
    return value, at


def _atom(tokens: list[str], at: int) -> tuple[Fraction, int]:
    if tokens[at] == "(":
        value, at = _sum(tokens, at + 1)
        if tokens[at] != ")":
            raise ValueError("unclosed parenthesis")
        return value, at + 1
    return Fraction(int(tokens[at])), at + 1


def _problem(split: str, level: int, index: int, seed: int) -> CountdownProblem:
    rng = Random(f"countdown {split} {level} {index} {seed}")
    while True:
        numbers = tuple(rng.randint(1, 25) for _ in range(level + 2))
        if _split_of(numbers) != split:
            continue
        target = rng.randint(10, 99)
        if target not in numbers and solve(numbers, target):
            break
    name = f"{split}/{level}/{index}" + (f"s{seed}" if seed else "")
    prompt = f"Reach {target} from {', '.join(map(str, numbers))} with + - * /.\n"
    return CountdownProblem(name, prompt, numbers, target, level)


def _split_of(numbers: tuple[int, ...]) -> str:
    bucket = crc32(" ".join(map(str, sorted(numbers))).encode()) % 10
    return {0: "heldout", 1: "validation"}.get(bucket, "train")


def _check(split: str, level: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; it must be one of 1 to {LEVELS[-1]}, with 3 to 6 numbers")
