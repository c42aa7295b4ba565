"""Checkpoints in the Hugging Face format: a folder of config.json, safetensors (one file, or shards with an index) and
tokenizer.json; generation_config.json is read where it is.

Language models of the families in `config.FAMILIES`, and reward models: the same with a token classification head of
one label (the reward of a prefix is sigmoid(score at its last token)).  The files are those that transformers, vLLM
and llama.cpp read, so a checkpoint made here runs there and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from torch import Tensor

from outthink.engine.config import LANGUAGE_MODEL, REWARD_MODEL, Config, existing, read_config
from outthink.engine.errors import CheckpointError
from outthink.engine.shards import Weights, read_weights, write_weights
from outthink.engine.size import shapes

__all__ = [
    "LANGUAGE_MODEL",
    "REWARD_MODEL",
    "CheckpointError",
    "Config",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "shapes",
]


def load_checkpoint(folder: str | Path) -> tuple[Config, Mapping[str, Tensor], Tokenizer]:
    """Return (config, weights by their Hugging Face names, tokenizer) of the checkpoint in `folder`.

    Weights keep the type they are stored in and are mapped from their files when they are asked for (`Weights`).
    Raises CheckpointError for a missing, truncated or foreign file, a missing or extra weight, and a wrong shape.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = _fitting(read_weights(folder), config, folder)
    path = existing(folder, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises a bare Exception
        raise CheckpointError(f"{path}: not a tokenizer ({error}); copy the model's own tokenizer.json") from error
    return config, weights, tokenizer


def save_checkpoint(
    folder: str | Path,
    config: Config,
    *,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    shard_bytes: int | None = None,
) -> None:
    """Write config.json, the weights (float32) and tokenizer.json to `folder`, which is made if needed.

    shard_bytes: None for one model.safetensors; else files of about that size, with an index.

    Raises CheckpointError if the weights do not fit the config; nothing is written then.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes(config):
        wrong = sorted(set(found.items()) ^ set(shapes(config).items()))[:3]
        raise CheckpointError(f"{folder}: weights do not fit the config, e.g. {wrong}; nothing was written")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, weights, shard_bytes=shard_bytes)
    (folder / "config.json").write_text(json.dumps(config.to_json(), indent=2, sort_keys=True) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def _fitting(weights: Weights, config: Config, folder: Path) -> Weights:
    """Return the weights that `config` asks for.  What may lie beside them: a copy of tied embeddings, and tables of
    rotations, which follow from the config."""
    wanted, found = shapes(config), weights.shapes
    extra = {name for name in found.keys() - wanted.keys() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        extra.discard("lm_head.weight")
    missing = sorted(wanted.keys() - found.keys())
    if missing or extra:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing {missing[:3] or 'none'}, "
            f"unknown {sorted(extra)[:3] or 'none'}; the two files must come from the same model"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {found[name]}, config.json asks for "
                f"{shape}; the two files must come from the same model"
            )
    return weights.only(wanted)
