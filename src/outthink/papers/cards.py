"""Cards: the docstring of a paper's module, with fixed headings, as data and as a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.errors import InvalidInput

HEADINGS = (
    "Paper", "Idea", "Entry", "Recipe", "Spends", "Stops", "Needs", "Differs", "Claim", "Use it when", "Not when",
)  # fmt: skip
_HEADING = re.compile(r"^([A-Z][a-z]+(?: [a-z]+)*):(?: |$)(.*)$")


@dataclass(frozen=True, slots=True)
class Card:
    """`title` is the first line; `parts` has the text of every heading; `str(card)` is the whole as it was written."""

    title: str
    parts: Mapping[str, str] = field(hash=False)
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.text


def parse(text: str | None, *, name: str) -> Card:
    """Return the card in a docstring: a title, then "Heading: text", further lines indented or not, in this order.

    Raises InvalidInput if there is no docstring, or a heading is missing, unknown, empty, double or out of order.
    """
    lines = [line.rstrip() for line in (text or "").strip().splitlines()]
    if not lines:
        raise InvalidInput(f"{name} has no card; begin its module with a docstring that has the headings {HEADINGS}")
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines[1:]:
        match = _HEADING.match(line)
        if match and match[1] in HEADINGS:
            if match[1] in parts:
                raise InvalidInput(f"the card of {name} has {match[1]!r} twice")
            parts[match[1]] = current = []
            line = match[2]
        current.append(line.strip())
    out = {heading: "\n".join(body).strip() for heading, body in parts.items()}
    found = tuple(heading for heading, body in out.items() if body)
    if found != HEADINGS:
        missing = [heading for heading in HEADINGS if heading not in found]
        what = f"lacks {', '.join(missing)}" if missing else f"has its headings as {', '.join(found)}"
        raise InvalidInput(f"the card of {name} {what}; it needs, in this order: {', '.join(HEADINGS)}")
    return Card(lines[0].rstrip("."), out, "\n".join(lines))


def page(name: str, card: Card, *, status: str, file: str) -> str:
    """Return the documentation page of a paper, in Markdown."""
    lines = [f"# {card.title}", "", f"`{name}` · `{file}` · claim: **{status}**", ""]
    for heading in HEADINGS:
        text = card.parts[heading]
        lines += [f"## {heading}", "", text[:1].upper() + text[1:], ""]
    return "\n".join([*lines, "*Generated from the card in the source by `python -m outthink.papers`.*", ""])
