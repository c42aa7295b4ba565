"""Stories behind the word problems: the sentences, the true steps, and what a careless teacher writes.

The teacher's mistakes exist to give small models trained on them a realistic spread of answers: slips and wrong
operands that votes average out, and one mistake (`Noise.role`) that is likelier than the truth, so that a
majority vote saturates and only a verifier can do better.  Problems and their graders never contain them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from outthink.tasks.word_splits import FRAMES, IDLE, ITEMS, MEN, WOMEN, names, pair_split, sequence_split, words

LEVELS = range(1, 9)
# Giving and taking are likelier than receiving and being taken from: with equal shares neither the verb nor the person
# alone would hint at the operation, and small models find such an exclusive or late.
_OPERATIONS = {"gain": 15, "lose": 15, "give": 16, "receive": 10, "take": 14, "taken": 10, "times": 10, "half": 10}
_SLIPS = (-10, -2, -1, 1, 2, 10)


@dataclass(frozen=True, slots=True)
class Noise:
    """How often the teacher makes each mistake, per sentence where it can be made.

    role: takes "Gus takes 5 pens from Ben" for a gain of Ben; above one half, so it is the usual answer.
    receive: takes "Gus gives 5 pens to Ben" for a loss of Ben.
    op: adds instead of subtracting, or the reverse, in any other sentence.
    idle: adds a number that belongs to someone else.
    operand: uses a number of another sentence.
    slip: writes a result that is off by 1, 2 or 10.
    skip: leaves the sentence out.
    """

    role: float = 0.6
    receive: float = 0.08
    op: float = 0.02
    idle: float = 0.3
    operand: float = 0.04
    slip: float = 0.025
    skip: float = 0.02


CARELESS = Noise()
_CAREFUL = Noise(role=0, receive=0, op=0, idle=0, operand=0, slip=0, skip=0)


@dataclass(frozen=True, slots=True)
class Story:
    """A told story: `steps` and `answer` are true; `written` is the teacher's solution, with its mistakes."""

    prompt: str
    steps: tuple[str, ...]
    answer: int
    written: tuple[str, ...]


def tell(rng: Random, level: int, *, split: str, noise: Noise | None = None) -> Story:
    """Return a story of `split` with `level` operations, drawn from `rng`; all numbers are in 0..99.

    Without noise the written solution is the true one.
    """
    while True:
        story = _attempt(rng, level, split, noise or _CAREFUL)
        if story is not None:
            return story


def _attempt(rng: Random, level: int, split: str, noise: Noise) -> Story | None:
    """Return a story, or None if it ran out of legal numbers or its sequence belongs to another split."""
    he, him, who, *others = _cast(rng, split)
    item = rng.choice(ITEMS)

    def sentence(kind: str, a: int, about: str = item) -> str:
        word = rng.choice(words(split, kind, about))
        people = {"who": who, "he": he, "him": him, "other": rng.choice(others)}
        return FRAMES[kind][1].format(**people, word=word, a=a, item=about)

    total = written = rng.randint(5, 60)
    lines, seen = [sentence("start", total)], list[int]()
    steps, notes, kinds = list[str](), list[str](), list[str]()
    while len(steps) < level:
        if rng.random() < 0.2:
            kind, a = rng.choice(("idle", *IDLE)), rng.randint(2, 40)
            lines.append(sentence(kind, a, rng.choice(ITEMS) if kind == "idle" else item))
            kinds.append(kind)
            seen.append(a)
            result = _apply(written, FRAMES[kind][0], a)
            if rng.random() < noise.idle and 2 <= result <= 99:
                notes.append(_line(len(lines), written, FRAMES[kind][0], a, result))
                written = result
        (kind,) = rng.choices(list(_OPERATIONS), list(_OPERATIONS.values()))
        sign = FRAMES[kind][0]
        wrong = {"taken": noise.role, "receive": noise.receive, "times": 0, "half": 0}.get(kind, noise.op)
        used = {"+": "-", "-": "+"}[sign] if rng.random() < wrong else sign
        fitting = _operands(total, sign, written, used, split)
        if not fitting:
            return None
        a = rng.choice(fitting)
        lines.append(sentence(kind, a))
        kinds.append(kind)
        true = _apply(total, sign, a)
        steps.append(_line(len(lines), total, sign, a, true))
        total = true
        if rng.random() >= noise.skip:
            operand = rng.choice(seen) if seen and used in "+-" and rng.random() < noise.operand else a
            result = _apply(written, used, operand)
            if not 0 <= result <= 99:
                operand, result = a, _apply(written, used, a)
            if rng.random() < noise.slip:
                result = min(99, max(0, result + rng.choice(_SLIPS)))
            notes.append(_line(len(lines), written, used, operand, result))
            written = result
        seen.append(a)
    if sequence_split(tuple(kinds)) not in (None, split):
        return None
    text = "".join(f"[{n}] {line}\n" for n, line in enumerate(lines, 1))
    prompt = f"{text}How many {item} does {who} have now?\n"
    return Story(prompt, tuple(steps), total, (*notes, f"# {written}"))


def _cast(rng: Random, split: str) -> tuple[str, ...]:
    """Return the two pronouns and the name of the one the story is about, and the names of two other people.

    The others are of the other gender, so that a pronoun always means the first; no two share an initial or an ending.
    """
    hers, his = names(split, WOMEN), names(split, MEN)
    while True:
        she = rng.random() < 0.5
        who, (first, second) = rng.choice(hers if she else his), rng.sample(his if she else hers, 2)
        if len({name[0] for name in (who, first, second)}) == len({name[1:] for name in (who, first, second)}) == 3:
            return ("She", "her", who, first, second) if she else ("He", "him", who, first, second)


def _operands(total: int, sign: str, written: int, used: str, split: str) -> list[int]:
    """Return the numbers that keep both the true and the written total in 2..99 with pairs of `split`."""
    choices = {"*": range(2, 4), "/": range(2, 3)}.get(sign, range(2, 61))
    diverged = (written, used) != (total, sign)
    return [
        a for a in choices if _legal(total, sign, a, split) and not (diverged and not _legal(written, used, a, split))
    ]


def _legal(total: int, sign: str, a: int, split: str) -> bool:
    if sign == "/":
        return total % a == 0 and total >= 4
    if not 2 <= _apply(total, sign, a) <= 99:
        return False
    return sign == "*" or pair_split(total, a) == split


def _apply(total: int, sign: str, a: int) -> int:
    return {"+": total + a, "-": total - a, "*": total * a, "/": total // a}[sign]


def _line(number: int, total: int, sign: str, a: int, result: int) -> str:
    return f"[{number}] {total}{sign}{a}={result}"
