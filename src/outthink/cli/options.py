"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_MODEL: list[Decorator] = [
    click.option("--model", "-m", default="embedded/reasoner", show_default=True, metavar="NAME",
                 help="embedded/reasoner, engine/PATH (a checkpoint folder), openai/NAME (a server), toy/t1."),
    click.option("--base-url", metavar="URL", help="Server of openai/NAME models [default: $OPENAI_BASE_URL]."),
    click.option("--verifier", metavar="NAME",
                 help="Reward model [default: embedded/reasoner-prm for embedded models, none for others]."),
    click.option("--cards", type=click.Path(path_type=Path), metavar="FILE",
                 help="Prices and sizes of models (JSON), for budgets in dollars or FLOPs."),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Longest completion [default: the method's]."),
    click.option("--temperature", type=click.FloatRange(min=0), help="Of samples [default: the method's]."),
    click.option("--seed", default=0, show_default=True, help="Same seed, same result."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, all else on stderr."),
]  # fmt: skip


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --base-url, --verifier, --cards, --max-tokens, --temperature, --seed and --json."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


def price_cards(path: Path | None) -> dict[str, Any] | None:
    """Return the cards in a file, None without one."""
    if path is None:
        return None
    from outthink.models.cards import read_cards

    return read_cards(path)


def given(**settings: Any) -> dict[str, Any]:
    """Return the settings that were given, so that the others keep their defaults."""
    return {name: value for name, value in settings.items() if value is not None}


def names(text: str, what: str, *, separator: str = ",") -> list[str]:
    """Return the parts of a list. Raises UsageError if there are none."""
    parts = [part.strip() for part in text.split(separator) if part.strip()]
    if not parts:
        raise click.UsageError(f"{what} is empty; write names separated by commas")
    return parts
