"""outthink models"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from outthink.cli.errors import FAILURE
from outthink.cli.options import DTYPES, Bytes

if TYPE_CHECKING:
    from outthink.engine.config import Config
    from outthink.models.catalogue import Folder, Shipped

_LENGTH = 2048  # tokens of a text, where nobody says


@click.command(short_help="List the models, or say what a checkpoint folder needs.")
@click.argument("path", required=False)
@click.option("--branches", type=click.IntRange(min=1), default=256, show_default=True,
              help="Texts at the same time, for the memory that a plan needs.")  # fmt: skip
@click.option("--length", type=click.IntRange(min=1), help="Tokens of each [default: 2048, at most the context].")
@click.option("--shared", type=click.IntRange(min=0), default=0, help="Tokens that they begin with alike, held once.")
@click.option("--kv-bytes", type=Bytes(), metavar="SIZE", help="Say whether the plan fits into this, per --dtype.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
              help="What the engine computes in, for --kv-bytes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def models(path: str | None, branches: int, length: int | None, shared: int, kv_bytes: int | None, dtype: str,
           as_json: bool) -> None:  # fmt: skip
    """List the models that can be named, or check the checkpoint folder PATH: whether it can be loaded and the memory
    that it needs. PATH may be written as --model takes it, engine/PATH or embedded/NAME."""
    from outthink.engine.size import planned
    from outthink.models.catalogue import inspect, others, shipped

    if path is None:
        rows = shipped()
        if as_json:
            click.echo(json.dumps({"models": [_row(one) for one in rows], "others": others()}, ensure_ascii=False))
        else:
            _table(rows, others())
        return
    folder = inspect(_folder(path))
    plan = _plan(folder.config, branches, length, shared) if folder.config is not None else {}
    if folder.config is not None and kv_bytes is not None:
        planned(folder.config, dtype, have=kv_bytes, **plan)
    if as_json:
        click.echo(json.dumps(_document(folder, plan), ensure_ascii=False))
    else:
        _page(folder, plan)
    if not folder.loadable:
        raise click.exceptions.Exit(FAILURE)


def _folder(path: str) -> str:
    from outthink.models.open import EMBEDDED

    kind, _, rest = path.partition("/")
    if kind == "embedded" and (EMBEDDED / rest / "config.json").is_file():
        return str(EMBEDDED / rest)
    return rest if kind == "engine" and rest else path


def _row(one: Shipped) -> dict[str, Any]:
    return {"name": one.name, "params": one.params, "context": one.context, "kind": _kind(one.rewards),
            "what": one.what}  # fmt: skip


def _plan(config: Config, branches: int, length: int | None, shared: int) -> dict[str, int]:
    """Return what is asked of memory; no text is longer than the context."""
    most = config.max_position_embeddings
    long = min(length or _LENGTH, most)
    return {"branches": branches, "length": long, "shared": shared if shared <= long else min(shared, most)}


def _document(folder: Folder, plan: dict[str, int]) -> dict[str, Any]:
    document: dict[str, Any] = {"path": str(folder.path), "loadable": folder.loadable, "problem": folder.problem}
    if folder.config is not None:
        from outthink.engine.size import parameters, planned

        document |= {"architecture": folder.config.architecture, "params": parameters(folder.config),
                     "context": folder.config.max_position_embeddings, "kind": _kind(folder.config.is_reward_model),
                     "chat_template": folder.chat, "weight_bytes": folder.weights,
                     "kv_bytes_per_token": folder.kv,
                     "plan": plan | {"kv_bytes": {kind: planned(folder.config, kind, **plan) for kind in folder.kv}},
                     }  # fmt: skip
    return document


def _kind(rewards: bool) -> str:
    return "reward model" if rewards else "language model"


def _table(rows: list[Shipped], names: dict[str, str]) -> None:
    from rich.table import Table

    from outthink.cli.tables import console

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("model", "parameters", "context", "kind", "what it is"):
        table.add_column(column, justify="right" if column in ("parameters", "context") else "left",
                         no_wrap=column != "what it is")  # fmt: skip
    for one in rows:
        table.add_row(f"[bold]{one.name}[/]", _count(one.params), f"{one.context:,}", _kind(one.rewards), one.what)
    out = console()
    out.print(table)
    out.print()
    more = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    more.add_column(no_wrap=True)
    more.add_column()
    for name, what in names.items():
        more.add_row(f"[bold]{name}[/]", what)
    out.print(more)
    out.print("outthink models PATH says whether a folder can be loaded, and what it needs", style="dim")


def _page(folder: Folder, plan: dict[str, int]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from outthink.cli.tables import console

    out, config = console(), folder.config
    if config is not None:
        from outthink.engine.size import amount, parameters, planned

        talk = "has a chat template" if folder.chat else "no chat template"
        out.print(f"{config.architecture}: {_kind(config.is_reward_model)}, {_count(parameters(config))} parameters, "
                  f"context {config.max_position_embeddings:,}, {talk}")  # fmt: skip
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("computed in", no_wrap=True)
        many = f"{plan['branches']} branches of {plan['length']:,} tokens"
        many += f", {plan['shared']:,} shared" if plan["shared"] else ""
        for column in ("weights", "keys and values, a token", many):
            table.add_column(column, justify="right", no_wrap=True)
        for kind, size in folder.weights.items():
            table.add_row(kind, amount(size), amount(folder.kv[kind]), amount(planned(config, kind, **plan)))
        out.print(table)
    if folder.problem is None:
        out.print(f"loadable: --model {escape(f'engine/{folder.path}')}", style="green")
    else:
        out.print(f"not loadable: {escape(folder.problem)}", style="red")


def _count(n: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.3g}{name}"
    return str(n)
