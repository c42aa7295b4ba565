"""From the name of a model to the backend that serves it.

embedded/reasoner      a model that comes with Outthink
engine/PATH            a checkpoint folder in the Hugging Face format: Llama, Mistral, Qwen2 or Qwen3
openai/NAME            a model of an OpenAI-compatible server (OPENAI_BASE_URL, OPENAI_API_KEY)
toy/t1                 a model of closed forms, for tests and for a first look
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.backend import Backend
from ..core.budget import Card
from ..core.errors import InvalidInput, unknown

OPENAI = "https://api.openai.com/v1"
EMBEDDED = Path(__file__).parent / "embedded"
KINDS = ("embedded", "engine", "openai", "toy")
LOCAL = ("embedded", "engine")
"""Kinds of models that the engine runs."""


def open_model(
    spec: str, *, base_url: str | None = None, api_key: str | None = None, deterministic: bool = False,
    replicas: int = 1, **knobs: Any,
) -> Backend:  # fmt: skip
    """Return the backend of the model that `spec` names; whoever opens it closes it.

    Args:
      base_url: of openai/NAME (others have no use for it), up to and including /v1, which an address without a path
        gets; None: the environment variable OPENAI_BASE_URL, else OpenAI's own.
      api_key: None: the environment variable OPENAI_API_KEY. "" means that the server needs none; for servers on this
        machine that is the default.
      deterministic: of the engine: the same seed gives the same text whatever else is in the batch. Servers cannot
        promise that; for them it is Unsupported.
      replicas: of the engine: how many share the work and the cores, each in a thread of its own with as many requests
        at once (`Replicas`). They share the weights, and memory for keys and values (`kv_bytes`) is divided among them.
      knobs: more of the backend's own (`OpenAI`, the engine, the toy).

    Raises InvalidInput for a name that is not known (with the closest match), an unusable address, a missing key or a
    missing extra (with the pip command).
    """
    kind, name = _split(spec)
    if replicas != 1 and kind not in LOCAL:
        raise InvalidInput(f"{spec}: replicas are of engines (embedded/NAME, engine/PATH); leave replicas out")
    if kind == "toy":
        from .toy import toy_backend

        return toy_backend(spec, **knobs)
    if kind == "openai":
        return _server(name, base_url=base_url, api_key=api_key, deterministic=deterministic, knobs=knobs)
    folder = _folder(kind, name)
    # Read once, when torch loads; a caller who has set them, or has loaded torch, keeps what he has. Threads that wait
    # by spinning make a run many times slower as soon as anything else wants the cores; and the products of the
    # embedded models are so small that a second thread costs more than it brings (a search of 8 s took 12).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if kind == "embedded":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import safetensors
        import tokenizers
        import torch
    except ImportError as error:
        raise _missing(spec, error, "engine") from None
    del safetensors, tokenizers, torch
    return _engines(folder, name=spec, count=replicas, deterministic=deterministic, **knobs)


def _engines(folder: Path, *, name: str, count: int, kv_bytes: int | None = None, **knobs: Any) -> Backend:
    """Return the engine of a checkpoint, or `count` of them as one; they share `kv_bytes`."""
    from ..engine.size import KV_BYTES, amount
    from .engine import EngineBackend
    from .replicas import Replicas

    if count < 1:
        raise InvalidInput(f"{count} replicas; give one or more")
    whole = kv_bytes if kv_bytes is not None else KV_BYTES
    memory = _memory()
    if memory is not None and whole > memory:
        raise InvalidInput(f"needs {amount(whole)} of KV; this machine has {amount(memory)}: use less --kv-bytes")
    one = EngineBackend.load(folder, name=name, kv_bytes=whole // count, **knobs)
    return one if count == 1 else Replicas(one, count=count)


def _memory() -> int | None:
    """Return the bytes of memory of this machine, None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def card_of(spec: str) -> Card:
    """Return what is known of a model's worth: the size of checkpoints, from their config.json; nothing of servers.

    Prices are never known here: give them (`models.cards`). A budget in dollars or FLOPs that needs what is not known
    is refused before anything is spent.
    """
    kind, name = _split(spec)
    if kind == "toy":
        from .toy import CARD

        return CARD
    if kind == "openai":
        return Card()
    folder = _folder(kind, name)
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Card()  # opening the model says what is wrong with it
    return _size(data)


def _split(spec: str) -> tuple[str, str]:
    kind, slash, name = spec.partition("/")
    if not slash or kind not in KINDS or not name:
        names = [*_embedded(), *_toys(), "engine/PATH", "openai/NAME"]
        raise unknown("model", spec, names)
    return kind, name


def _folder(kind: str, name: str) -> Path:
    if kind == "embedded":
        if f"embedded/{name}" not in _embedded():
            raise unknown("model", f"embedded/{name}", _embedded())
        return EMBEDDED / name
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InvalidInput(
            f"engine/{name}: no folder {str(folder)!r}; give the folder that holds config.json, model.safetensors and "
            "tokenizer.json"
        )
    return folder


def _embedded() -> list[str]:
    if not EMBEDDED.is_dir():
        return []
    return sorted(f"embedded/{path.name}" for path in EMBEDDED.iterdir() if (path / "config.json").is_file())


def _toys() -> list[str]:
    from .toy import WORLDS

    return sorted(WORLDS)


def _server(
    name: str, *, base_url: str | None, api_key: str | None, deterministic: bool, knobs: dict[str, Any]
) -> Backend:
    if deterministic:
        raise InvalidInput(f"openai/{name}: a server cannot promise the same text every time; leave out deterministic")
    given = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or OPENAI
    url, local = _address(given)
    key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
    if key is None and not local:
        raise InvalidInput(
            f"{url} wants a key: set OPENAI_API_KEY (empty if this server needs none), or give api_key; for a server "
            "on this machine give its base_url or OPENAI_BASE_URL"
        )
    from .openai import OpenAI

    return OpenAI(name, base_url=url, api_key=key or "", proxies=not local, **knobs)


def _address(url: str) -> tuple[str, bool]:
    """Return (base URL, whether it is on this machine)."""
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"base_url {url!r}: {error}; write http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise InvalidInput(f"base_url {url!r} is not the address of a server; write http://localhost:8000/v1")
    path = parts.path.rstrip("/") or "/v1"
    try:
        address = ip_address(host)
        local = address.is_loopback or address.is_unspecified
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    return f"{parts.scheme}://{parts.netloc}{path}", local


def _missing(what: str, error: ImportError, extra: str) -> InvalidInput:
    return InvalidInput(f"{what} needs {error.name}, which is not installed: pip install 'outthink[{extra}]'")


def _size(data: Any) -> Card:
    """Return parameters and FLOPs per attended position of a checkpoint's config.json; nothing if it is not one."""
    from ..engine.config import Config
    from ..engine.errors import CheckpointError
    from ..engine.size import parameters

    try:
        config = Config.from_json(data)
    except (CheckpointError, AttributeError, KeyError, TypeError):
        return Card()
    # Scores and weighted sum: 2 * 2 FLOPs for each query channel, layer and attended position.
    heads = config.num_attention_heads * config.head_dim
    return Card(params=parameters(config), attention=4 * heads * config.num_hidden_layers)
