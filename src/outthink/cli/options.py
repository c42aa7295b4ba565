"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
DTYPES = ("float32", "bfloat16", "int8", "int4")
"""What the engine computes in; its own list, `engine.size.KINDS`, is not loaded to print a help text."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Bytes(click.ParamType):
    """An amount of memory: 512MiB, "3.2 GiB", 2G, or a number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]*\.?[0-9]+) *([kKMGT]?)(?:i?B)?", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no amount of memory; write 512MiB, 3.2GiB or a number of bytes", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])


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
    click.option("--replicas", type=click.IntRange(min=1), metavar="N",
                 help="Engines that share the work and the cores, for embedded/ and engine/ models [default: 1]."),
    click.option("--kv-bytes", type=Bytes(), metavar="SIZE",
                 help="Memory for keys and values of engines: 512MiB, 4GiB [default: 1GiB]."),
    click.option("--dtype", type=click.Choice(DTYPES), help="What engines compute in [default: float32]."),
    click.option("--seed", default=0, show_default=True, help="Same seed, same result."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, all else on stderr."),
]  # fmt: skip


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --base-url, --verifier, --cards, --max-tokens, --temperature, --replicas, --kv-bytes, --dtype,
    --seed and --json."""
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
