"""Grade-school word problems with numbered sentences, an exact grader and a step checker.

    [1] Ben has 52 cups.
    [2] Tia owns 9 maps.
    [3] He gives 12 cups to Tia.
    How many cups does Ben have now?

A solution is one line per operation, citing its sentence, and an answer line: "[3] 52-12=40\\n# 40\\n".
Levels 1..8 are the number of operations; sentences about other people's things distract.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from outthink.tasks.word_splits import SPLITS
from outthink.tasks.word_story import LEVELS, Noise, tell

STOP_STEP = "\n"

_ANSWER = re.compile(r"#\s*(\d{1,3})\s*", re.ASCII)
_STEP = re.compile(r"\[(\d{1,2})\]\s*(\d{1,3})\s*([-+*/])\s*(\d{1,3})\s*=\s*(\d{1,3})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A problem with its reference: `answer` is a canonical integer, `steps` the lines of the true solution."""

    id: str
    prompt: str
    answer: str
    level: int
    steps: tuple[str, ...]


def generate(split: str, level: int, *, count: int, seed: int) -> list[WordProblem]:
    """Return `count` problems of one split and level.

    The i-th problem depends only on (split, level, i, seed), so a longer list begins with the shorter one.
    Ids are "split/level/i", with "s<seed>" behind if the seed is not 0.
    """
    _check(split, level)
    if count < 0:
        raise ValueError(f"count is {count}; it must be 0 or more")
    return [_problem(split, level, index, seed) for index in range(count)]


def problems(split: str = "heldout", *, limit: int | None = None, seed: int = 0) -> list[WordProblem]:
    """Return `limit` problems (800 if None) of levels 1..8 in turn, so that any limit is balanced."""
    count = 800 if limit is None else limit
    if count < 0:
        raise ValueError(f"limit is {limit}; it must be 0 or more, or None for 800")
    _check(split, LEVELS[0])
    places = (divmod(index, len(LEVELS)) for index in range(count))
    return [_problem(split, LEVELS[level], index, seed) for index, level in places]


def lessons(level: int, *, noise: Noise | None = None, seed: int) -> Iterator[tuple[str, str]]:
    """Yield without end (prompt, solution) of the training split, with the mistakes of a careless teacher.

    `noise=None` gives true solutions.  Only training may use this: evaluation grades against the truth.
    """
    _check("train", level)
    rng = Random(f"lessons {level} {seed}")
    while True:
        story = tell(rng, level, split="train", noise=noise)
        yield story.prompt, "\n".join(story.written) + "\n"


def solution(problem: WordProblem) -> str:
    """Return the text of the true solution, its answer line included."""
    return "\n".join((*problem.steps, f"# {problem.answer}")) + "\n"


def answer_of(text: str) -> str | None:
    """Return the canonical answer of a completion: the integer of its first line that starts with "#".

    None if there is no such line or something other than an integer of at most three digits stands there.
    """
    for line in text.split("\n"):
        if line.lstrip().startswith("#"):
            match = _ANSWER.fullmatch(line.strip())
            return str(int(match[1])) if match else None
    return None


def grade(problem: WordProblem, answer: str | None) -> bool:
    """Return whether `answer` is the reference; None, no answer, is wrong."""
    return answer is not None and answer == problem.answer


def check_steps(problem: WordProblem, text: str) -> list[bool]:
    """Return for each line of `text` whether the solution is right so far, that line included.

    A line is right if it is the next true step, spaces aside; there is one true order, that of the story.
    After the first wrong line all are wrong.  Empty text gives an empty list.
    """
    expected = [_spaceless(line) for line in (*problem.steps, f"# {problem.answer}")]
    right, verdicts = True, []
    for index, line in enumerate(text.removesuffix("\n").split("\n") if text else []):
        right = right and index < len(expected) and _spaceless(line) == expected[index]
        verdicts.append(right)
    return verdicts


def arithmetic_holds(line: str) -> bool | None:
    """Return whether the equation of a step line is true, whatever the problem; None if it is not a step line."""
    match = _STEP.fullmatch(line.strip())
    if match is None:
        return None
    x, sign, a, result = int(match[2]), match[3], int(match[4]), int(match[5])
    if sign == "/":
        return a != 0 and x == a * result
    return result == {"+": x + a, "-": x - a, "*": x * a}[sign]


def _spaceless(line: str) -> str:
    return "".join(line.split())


def _problem(split: str, level: int, index: int, seed: int) -> WordProblem:
    story = tell(Random(f"{split} {level} {index} {seed}"), level, split=split)
    name = f"{split}/{level}/{index}" + (f"s{seed}" if seed else "")
    return WordProblem(name, story.prompt, str(story.answer), level, story.steps)


def _check(split: str, level: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; it must be one of 1 to {LEVELS[-1]}, the number of operations")
