"""Price cards: what the units of a model are worth. No prices are built in: they change, and a wrong one is worse than
none. A budget in dollars for a model without prices is an error, never free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ..core.budget import PICO, Card
from ..core.cost import UNITS
from ..core.errors import InvalidInput, unknown

FORM = '{"openai/NAME": {"dollars_per_million": {"prompt": 2.5, "cached": 1.25, "output": 10}, "params": 8000000000}}'
_FIELDS = ("dollars_per_million", "params", "attention", "source")


def read_cards(path: str | Path) -> dict[str, Card]:
    """Return the cards in a JSON file, by model.

    dollars_per_million: dollars for a million of a unit. `cached` is what a cached prompt token costs; it stands on the
      card as the (negative) difference to `prompt`, because cached tokens are counted among the prompt's too.
    params, attention: for budgets in FLOPs (2 * params a token, `attention` per attended position).
    source: where the prices are from, and when; read by people.

    Raises InvalidInput, naming the file and the model, for what cannot be used.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file; a file of price cards looks like {FORM}") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not a file of price cards ({error}); it looks like {FORM}") from None
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: holds a {type(data).__name__}; a file of price cards looks like {FORM}")
    return {model: _card(row, source=f"{path}: {model}") for model, row in data.items()}


def prices(text: str) -> dict[str, int]:
    """Return the prices (picodollars) in "prompt=2.5,output=10": dollars for a million of each unit."""
    given: dict[str, Any] = {}
    for part in text.split(","):
        unit, equals, amount = part.partition("=")
        if not equals or unit.strip() in given:
            raise InvalidInput(f"prices {text!r}: write each unit once, in dollars per million: prompt=2.5,output=10")
        given[unit.strip()] = amount.strip()
    return _prices(given, source=f"prices {text!r}")


def _card(row: Any, *, source: str) -> Card:
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{source}: a card is a JSON object like {FORM}")
    for name in row:
        if name not in _FIELDS:
            raise unknown(f"field of {source}", name, _FIELDS)
    given = row.get("dollars_per_million")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidInput(f"{source}: dollars_per_million gives a price for each unit, like {FORM}")
    counts = {name: _whole(row[name], f"{source}: {name}") for name in ("params", "attention") if name in row}
    return Card(
        prices=None if given is None else _prices(given, source=source),
        params=counts.get("params"),
        attention=counts.get("attention", 0),
    )


def _prices(given: Mapping[str, Any], *, source: str) -> dict[str, int]:
    out = {}
    for unit, amount in given.items():
        if unit not in UNITS:
            raise unknown(f"unit in {source}", unit, UNITS)
        try:
            exact = Decimal(str(amount)) * PICO / 10**6
        except InvalidOperation:
            raise InvalidInput(f"{source}: {unit} costs {amount!r}, which is not a number of dollars") from None
        if not exact.is_finite() or exact < 0 or exact != int(exact):
            raise InvalidInput(
                f"{source}: {unit} costs {amount} dollars per million; a price is zero or more, with at most 6 decimals"
            )
        out[unit] = int(exact)
    if "cached" in out:
        if out["cached"] > out.get("prompt", 0):
            raise InvalidInput(f"{source}: cached tokens cost more than prompt tokens; leave `cached` out")
        out["cached"] -= out["prompt"]
    return out


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, Decimal) or value < 0 or value != int(value):
        raise InvalidInput(f"{what} is {value!r}; a whole number is needed, zero or more")
    return int(value)
