"""Why an answer ended, and its text with the stop string that ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .abilities import Abilities


@dataclass(frozen=True, slots=True)
class Ending:
    """`text` up to and including the stop string. `cut`: it was we who cut it, the server had gone on."""

    text: str
    finish: Literal["end", "stop", "length"]
    stop: str | None = None
    cut: bool = False


def first_stop(text: str, stop: Sequence[str]) -> tuple[int, str] | None:
    """Return (where it ends, the stop string) of the occurrence that ends first; ties: the longer string. Else None."""
    ends = [(at + len(s), -len(s), s) for s in stop if s and (at := text.find(s)) >= 0]
    if not ends:
        return None
    end, _, found = min(ends)
    return end, found


def ending(
    text: str, *, reason: str | None, named: str | None, names_stop: bool, stop: Sequence[str], can: Abilities
) -> Ending:
    """Return how the whole answer `text` ended.

    A stop string that stands in the text ends it there, whether the server kept it or ignored it. One that the server
    cut off is put back: the one it names (vLLM's `stop_reason`, SGLang's `matched_stop`). A server that names none and
    keeps none says "stop" also when the model ended its text. Then it is taken for the first of `stop`, because a
    step taken for the end would be lost, while an end taken for a step only costs one more, empty, answer: an
    empty answer is an end.

    Args:
      reason: the server's `finish_reason`; None (a server that gives none) counts as an end.
      named: the stop string that the server named. names_stop: whether it names them at all.
    """
    found = first_stop(text, stop)
    if found is not None:
        return Ending(text[: found[0]], "stop", found[1], cut=found[0] < len(text))
    if reason == "length":
        return Ending(text, "length")
    if reason != "stop" or not stop:
        return Ending(text, "end")
    if names_stop:
        return Ending(text + named, "stop", named) if named in stop and named is not None else Ending(text, "end")
    if can.stop in ("keep", "ignore") or not text:
        return Ending(text, "end")
    return Ending(text + stop[0], "stop", stop[0])


def cut_logprobs(rows: Sequence[tuple[str, float]], length: int) -> tuple[float, ...]:
    """Return the log-probabilities of the tokens that the first `length` characters need."""
    out: list[float] = []
    have = 0
    for token, value in rows:
        if have >= length:
            break
        out.append(value)
        have += len(token)
    return tuple(out)
