"""Where the tokens of a run went, as steps from nothing to the total. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.core.trace import Served
from outthink.experiments.breakdown import by_role, chosen_output


@dataclass(frozen=True, slots=True)
class Bar:
    """`tokens` spent on `name`, after `before` tokens of other bars."""

    name: str
    before: int
    tokens: int


def waterfall(events: Sequence[Served], *, policy: str, text: str | None) -> list[Bar]:
    """Return bars that add up to the tokens of the run: prompts, the chosen completion, what was thrown away, the rest.

    If the trace does not tell which output was chosen, generation is one bar.
    """
    roles = by_role(events, policy=policy)
    chosen = chosen_output(events, text=text)
    parts: list[tuple[str, int]] = []
    for role, cost in roles.items():
        if role == "generate":
            output = cost.total("output")
            parts.append(("prompt", cost.total("prompt")))
            if chosen is None:
                parts.append(("generated", output))
            else:
                parts += [("chosen completion", min(chosen, output)), ("thrown away", output - min(chosen, output))]
        else:
            parts.append((f"{role}", cost.tokens))
    bars, before = [], 0
    for name, tokens in parts:
        if tokens:
            bars.append(Bar(name, before, tokens))
            before += tokens
    return bars
