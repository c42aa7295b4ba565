"""Checkpoints in the Hugging Face Llama format: a folder of config.json, model.safetensors and tokenizer.json.

Two architectures are read and written: `LlamaForCausalLM` (a language model) and `LlamaForTokenClassification`
with one label (a reward model: the reward of a prefix is sigmoid(score at its last token)).  The files are those
that transformers, vLLM and llama.cpp read, so a checkpoint made here runs there and the other way round.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

from outthink.engine.config import LANGUAGE_MODEL, REWARD_MODEL, Config
from outthink.engine.errors import CheckpointError
from outthink.engine.size import shapes

__all__ = [
    "LANGUAGE_MODEL",
    "REWARD_MODEL",
    "CheckpointError",
    "Config",
    "load_checkpoint",
    "save_checkpoint",
    "shapes",
]


def load_checkpoint(folder: str | Path) -> tuple[Config, dict[str, torch.Tensor], Tokenizer]:
    """Return (config, weights by their Hugging Face names, tokenizer) of the checkpoint in `folder`.

    Weights keep the type they are stored in.  Raises CheckpointError for a missing, truncated or foreign file,
    a missing or extra weight, and a wrong shape.
    """
    folder = Path(folder)
    config = Config.from_json(_read_config(folder), source=str(folder / "config.json"))
    weights = _read_weights(folder)
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    wanted = shapes(config)
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or extra:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing {missing[:3] or 'none'}, "
            f"unknown {extra[:3] or 'none'}; the two files must come from the same model"
        )
    for name, shape in wanted.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(weights[name].shape)}, config.json asks for "
                f"{shape}; the two files must come from the same model"
            )
    path = _existing(folder, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises a bare Exception
        raise CheckpointError(f"{path}: not a tokenizer ({error}); copy the model's own tokenizer.json") from error
    return config, weights, tokenizer


def save_checkpoint(
    folder: str | Path, config: Config, *, weights: dict[str, torch.Tensor], tokenizer: Tokenizer
) -> None:
    """Write config.json, model.safetensors (float32) and tokenizer.json to `folder`, which is made if needed.

    Raises CheckpointError if the weights do not fit the config; nothing is written then.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != shapes(config):
        wrong = sorted(set(found.items()) ^ set(shapes(config).items()))[:3]
        raise CheckpointError(f"{folder}: weights do not fit the config, e.g. {wrong}; nothing was written")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_json(), indent=2, sort_keys=True) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; a checkpoint folder holds config.json, model.safetensors and tokenizer.json"
        )
    return path


def _read_config(folder: Path) -> dict:
    path = _existing(folder, "config.json")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy the model's own config.json") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__}, a JSON object is needed")
    return data


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        path = _existing(folder, name)
        try:
            with safe_open(path, framework="pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys()}
        except SafetensorError as error:
            raise CheckpointError(f"{path}: truncated or corrupt ({error}); fetch it again") from error
    return weights
