"""outthink models"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from outthink.cli.errors import FAILURE

if TYPE_CHECKING:
    from outthink.models.catalogue import Folder, Shipped


@click.command(short_help="List the models, or say what a checkpoint folder needs.")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def models(path: str | None, as_json: bool) -> None:
    """List the models that can be named, or check the checkpoint folder PATH: whether it can be loaded and the memory
    that it needs. PATH may be written as --model takes it, engine/PATH or embedded/NAME."""
    from outthink.models.catalogue import inspect, others, shipped

    if path is None:
        rows = shipped()
        if as_json:
            click.echo(json.dumps({"models": [_row(one) for one in rows], "others": others()}, ensure_ascii=False))
        else:
            _table(rows, others())
        return
    folder = inspect(_folder(path))
    if as_json:
        click.echo(json.dumps(_document(folder), ensure_ascii=False))
    else:
        _page(folder)
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


def _document(folder: Folder) -> dict[str, Any]:
    document: dict[str, Any] = {"path": str(folder.path), "loadable": folder.loadable, "problem": folder.problem}
    if folder.config is not None:
        from outthink.engine.size import parameters

        document |= {"architecture": folder.config.architecture, "params": parameters(folder.config),
                     "context": folder.config.max_position_embeddings, "kind": _kind(folder.config.is_reward_model),
                     "chat_template": folder.chat, "weight_bytes": folder.weights,
                     "kv_bytes_per_token": folder.kv}  # fmt: skip
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


def _page(folder: Folder) -> None:
    from rich.markup import escape
    from rich.table import Table

    from outthink.cli.tables import console

    out, config = console(), folder.config
    if config is not None:
        from outthink.engine.size import parameters

        talk = "has a chat template" if folder.chat else "no chat template"
        out.print(f"{config.architecture}: {_kind(config.is_reward_model)}, {_count(parameters(config))} parameters, "
                  f"context {config.max_position_embeddings:,}, {talk}")  # fmt: skip
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("computed in", no_wrap=True)
        length = min(2048, config.max_position_embeddings)
        for column in ("weights", "keys and values, a token", f"256 branches of {length:,} tokens"):
            table.add_column(column, justify="right", no_wrap=True)
        for kind, size in folder.weights.items():
            token = folder.kv[kind]
            table.add_row(kind, _bytes(size), _bytes(token), _bytes(256 * length * token))
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


def _bytes(n: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n} B"
