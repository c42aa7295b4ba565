"""What a server can do with a model, found out with a handful of tiny requests.

    1  greedy, 16 tokens: which endpoint, streaming, usage, log-probabilities, fields that are refused
    2  the same with a stop string from its middle: kept, cut off or ignored
    3  three samples, two with one seed: whether seeds hold (while others run) and whether samples differ
    4  one more at min_p 1: whether that is greedy
    5  chat only: the first part of 1 as an assistant message: whether it is continued
    6  chat that is not continued: 1 by completions: whether the chat template adds anything at all

A server that refuses a field costs nothing for that; a field is then left out for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...core.cost import Cost
from .abilities import Abilities
from .failures import Broken
from .questions import Ask, Questions, together

NO_ENDPOINT = frozenset((400, 404, 405, 422, 500, 501))
"""Statuses after which `completions` is tried instead of `chat`: a base model has no chat template."""


CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length")
"""Under which names servers say the longest text, in `/models`."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found. `cost` is what the probe took, `notes` what a user should know."""

    can: Abilities
    cost: Cost = field(default_factory=Cost)
    notes: tuple[str, ...] = ()


async def probe(
    ask: Ask,
    *,
    model: str,
    api: Literal["chat", "completions"] | None = None,
    listing: Callable[[], Awaitable[Sequence[dict[str, Any]]]],
    tokens: Callable[[str], int] | None = None,
) -> Probed:
    """Return what the server can do. Raises Broken if it does not even answer the first request.

    Args:
      api: the endpoint to use; None: chat if it works, else completions.
      listing: gives the rows of `/models`, for the context length.
      tokens: counts the tokens of a text, if a tokenizer is at hand.
    """
    found = Questions(ask, model, tokens)
    try:
        greedy = await found.begin(api or "chat")
    except Broken as broken:
        if api is not None or broken.status not in NO_ENDPOINT:
            raise
        try:
            greedy = await found.begin("completions")
        except Broken:
            raise broken from None
    await together(found.stops(greedy.text), found.seeds(greedy.text), found.continues(greedy.text))
    if api is None and found.can.api == "chat" and found.can.continues is None:
        await found.bare(greedy)
    rows = [row for row in await listing() if row.get("id") == model]
    context = next((n for row in rows for name in CONTEXT if isinstance(n := row.get(name), int) and n > 0), None)
    return Probed(replace(found.can, context=context), Cost.sum(found.costs), tuple(found.notes))
