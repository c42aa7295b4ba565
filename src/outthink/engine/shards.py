"""Weights in safetensors files, one or several with an index: mapped into memory, read where they are touched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from outthink.engine.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_TYPES = ("F64", "F32", "F16", "BF16")


class Weights(Mapping[str, Tensor]):
    """Weights by name.  Each access maps its file anew, so that what nobody holds any more takes no memory: a model
    can be laid out weight by weight, and only the result is resident.  The files must stay as they are meanwhile."""

    def __init__(self, files: Mapping[str, Path], found: Mapping[str, tuple[int, ...]]) -> None:
        self._files, self.shapes = files, found

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __len__(self) -> int:
        return len(self._files)

    def only(self, names: Iterable[str]) -> Weights:
        """Return these weights alone, in this order."""
        return Weights({name: self._files[name] for name in names}, {name: self.shapes[name] for name in names})


def read_weights(folder: Path) -> Weights:
    """Return the weights in `folder`, in the types they are stored in.

    Like transformers, takes model.safetensors where it is and the index otherwise.

    Raises CheckpointError, naming the file, for one that is missing, truncated or not safetensors, for an index that
    is not that of the shards, and for weights that are not floating point.
    """
    index = folder / INDEX
    one = (folder / SINGLE).is_file() or not index.is_file()
    named: Mapping[str, list[str] | None] = {SINGLE: None} if one else _read_index(index)
    files: dict[str, Path] = {}
    found: dict[str, tuple[int, ...]] = {}
    for number, (name, wanted) in enumerate(named.items(), 1):
        path = folder / name
        if not path.is_file():
            raise CheckpointError(_absent(path, number, len(named)))
        held = _read_header(path)
        lacking = sorted(set(held if wanted is None else wanted) - held.keys())
        if lacking:
            raise CheckpointError(
                f"{index}: says that {name} holds {lacking[0]}, which it does not; index and shards must come from the "
                "same model"
            )
        for weight in held if wanted is None else wanted:
            files[weight], found[weight] = path, held[weight]
    return Weights(files, found)


def write_weights(folder: Path, weights: Mapping[str, Tensor], *, shard_bytes: int | None = None) -> None:
    """Write `weights` as float32: to one file, or to several of about `shard_bytes` each (at least a weight) with an
    index.  Files of an earlier checkpoint in the folder go."""
    shards: list[list[str]] = [[]]
    size = total = 0
    for name in weights:
        need = 4 * weights[name].numel()
        if shard_bytes is not None and shards[-1] and size + need > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size, total = size + need, total + need
    count = len(shards)
    names = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)] if count > 1 else [SINGLE]
    for name, held in zip(names, shards, strict=True):
        plain = {weight: weights[weight].detach().to("cpu", torch.float32).contiguous() for weight in held}
        save_file(plain, folder / f"{name}.tmp", metadata={"format": "pt"})
    for name in names:  # only now: the old files may be what the weights were read from
        (folder / f"{name}.tmp").replace(folder / name)
    for old in {*folder.glob("model-*-of-*.safetensors"), folder / SINGLE, folder / INDEX}:
        if old.name not in names:
            old.unlink(missing_ok=True)
    if count > 1:
        where = {weight: name for name, held in zip(names, shards, strict=True) for weight in held}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_index(path: Path) -> dict[str, list[str]]:
    try:
        where: Any = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(weight, str(name)) for weight, name in where.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not an index of shards ({error!r}); copy the model's own") from error
    named: dict[str, list[str]] = {}
    for weight, name in sorted(pairs, key=lambda pair: pair[1]):
        if Path(name).name != name:
            raise CheckpointError(f"{path}: names {name!r}; shards lie beside their index, under plain file names")
        named.setdefault(name, []).append(weight)
    return named


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a file holds; nothing else of it is read."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            odd = [(name, part.get_dtype()) for name, part in slices.items() if part.get_dtype() not in _TYPES]
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or corrupt ({error}); fetch it again") from error
    if odd:
        raise CheckpointError(
            f"{path}: {odd[0][0]} is stored as {odd[0][1]}; weights of {', '.join(_TYPES)} are read, fewer bits are "
            'made when the model is loaded (dtype="int8" or "int4")'
        )
    return found


def _absent(path: Path, number: int, count: int) -> str:
    if count > 1:
        return (
            f"{path}: no such file (shard {number} of {count} that {INDEX} names); fetch it from where the others are"
        )
    pickles = sorted(path.parent.glob("*.bin"))
    if pickles:
        return (
            f"{path}: no such file, only {pickles[0].name}, which is not read because a pickle may run any code; "
            "fetch the safetensors or convert it with transformers' save_pretrained"
        )
    return f"{path}: no such file; a checkpoint folder holds config.json, {SINGLE} and tokenizer.json"
