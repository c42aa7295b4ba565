"""The final answer in free text, in one canonical form: what is voted on and graded when a task has no parser."""

from __future__ import annotations

import re
from fractions import Fraction

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_HASH = re.compile(r"^\s*#{1,4}\s*(\S.*?)\s*$", re.MULTILINE)
_SAYS = re.compile(
    r"(?:final answer|answer)\s*(?:is|:|=)\s*\**\s*(.+?)\s*(?:\.\s|\.?\s*$)", re.IGNORECASE | re.MULTILINE
)
_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?%?")


def final_answer(text: str) -> str | None:
    r"""Return the canonical final answer of a completion, None if it has none.

    The last of the first kind present: \boxed{...}; a line "# ..." or "#### ..."; "the answer is ..."; else, if the
    text ends in a line with a number, the last number of that line. Text without any of these has no answer.
    """
    for pattern in (_BOXED, _HASH, _SAYS):
        found = pattern.findall(text)
        if found:
            return canonical(found[-1]) or None
    lines = text.strip().splitlines()
    numbers = _NUMBER.findall(lines[-1]) if lines else []
    return canonical(numbers[-1]) if numbers else None


def canonical(answer: str) -> str:
    """Return `answer` with numbers in lowest terms ("1,200.50" -> "2401/2", "6/4" -> "3/2"), other text casefolded.

    Surrounding spaces, a final full stop, dollar signs and LaTeX's math marks go; a percent sign stays, as its value
    differs. Two answers are equal if their canonical forms are.
    """
    text = " ".join(answer.strip().strip("$*`").removesuffix(".").split())
    text = re.sub(r"\\d?frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text).replace("\\$", "").replace("\\%", "%")
    percent = text.endswith("%")
    number = text.removesuffix("%").replace(",", "").replace("$", "").replace(" ", "")
    try:
        value = Fraction(number)
    except (ValueError, ZeroDivisionError):
        return text.casefold()
    return f"{value}%" if percent else str(value)
