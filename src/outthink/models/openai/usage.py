"""What a server says it has used, checked, as a `Cost`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.cost import Cost


def served(usage: Any, *, model: str, bound: Cost, text: str) -> tuple[Cost, bool]:
    """Return (cost of an answer, whether the server said it).

    A count that is missing, no integer, negative, or zero where it cannot be (a prompt, an output with text) is not
    believed: that unit is charged at its bound and the cost is not exact. A count above the bound is believed and
    booked in full. `total_tokens` beyond prompt and completion is output too: some count hidden reasoning only there.

    Args:
      usage: the `usage` of the answer, whatever it is; None where there was none.
      bound: what was reserved for the request.
      text: what was generated.
    """
    data = usage if isinstance(usage, Mapping) else {}
    prompt, output = _count(data, "prompt_tokens", at_least=1), _count(data, "completion_tokens", at_least=bool(text))
    total = _count(data, "total_tokens", at_least=0)
    if prompt is not None and output is not None and total is not None:
        output = max(output, total - prompt)
    exact = prompt is not None and output is not None
    units = {
        "calls": 1,
        "prompt": bound.total("prompt") if prompt is None else prompt,
        "output": bound.total("output") if output is None else output,
    }
    details = data.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens", at_least=0) if isinstance(details, Mapping) else None
    if cached and prompt is not None:
        units["cached"] = min(cached, prompt)
    return Cost.of(model, **units), exact


def seen(text: str, usage: Any, *, model: str, bound: Cost, grace: int | None) -> Cost:
    """Return the most that an answer we left in the middle can have cost; with `grace` None that is its bound.

    Tokens seen are what the server counted so far if it says so in every chunk, else the bytes of the text: a token
    has at least one.
    """
    if grace is None:
        return bound
    data = usage if isinstance(usage, Mapping) else {}
    prompt, output = _count(data, "prompt_tokens", at_least=1), _count(data, "completion_tokens", at_least=1)
    tokens = (len(text.encode("utf-8", "surrogatepass")) if output is None else output) + grace
    return Cost.of(
        model,
        calls=1,
        prompt=bound.total("prompt") if prompt is None else prompt,
        output=min(tokens, bound.total("output")),
    )


def _count(data: Mapping[str, Any], name: str, *, at_least: int) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= at_least else None
