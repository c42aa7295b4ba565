"""Checkpoints in the Hugging Face Llama format: a folder of config.json, model.safetensors and tokenizer.json.

Two architectures are read and written: `LlamaForCausalLM` (a language model) and `LlamaForTokenClassification`
with one label (a reward model: the reward of a prefix is sigmoid(score at its last token)).  The files are those
that transformers, vLLM and llama.cpp read, so a checkpoint made here runs there and the other way round.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

LANGUAGE_MODEL = "LlamaForCausalLM"
REWARD_MODEL = "LlamaForTokenClassification"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which file, what is wrong with it and what to do."""


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a Llama model, under the names of its config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 512
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    architecture: str = LANGUAGE_MODEL

    @property
    def is_reward_model(self) -> bool:
        return self.architecture == REWARD_MODEL

    def to_json(self) -> dict:
        """Return the content of config.json, with the fields that transformers needs beside ours."""
        data = asdict(self)
        data["architectures"] = [data.pop("architecture")]
        data |= {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
        data |= {"attention_dropout": 0.0, "dtype": "float32", "pad_token_id": None, "use_cache": True}
        data |= {"rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta}}
        if self.is_reward_model:
            data |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "classifier_dropout": 0.0}
        return data

    @classmethod
    def from_json(cls, data: dict, *, source: str = "config.json") -> Config:
        """Return the Config described by the parsed config.json `data`.

        Raises CheckpointError, naming `source`, if a field is missing or asks for what is not supported
        (another architecture, biases, scaled rotary embeddings, another activation, more than one label).
        """
        architecture = (data.get("architectures") or [None])[0]
        if architecture not in (LANGUAGE_MODEL, REWARD_MODEL):
            raise CheckpointError(
                f"{source}: architecture {architecture!r} is not supported; use {LANGUAGE_MODEL} or {REWARD_MODEL}"
            )
        missing = [name for name in _REQUIRED if name not in data]
        if missing:
            raise CheckpointError(f"{source}: missing {', '.join(missing)}; copy the model's own config.json")
        rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        unsupported = {
            "attention_bias": bool(data.get("attention_bias")),
            "mlp_bias": bool(data.get("mlp_bias")),
            f"rope_type {rope_type!r}": rope_type != "default",
            f"hidden_act {data.get('hidden_act')!r}": data.get("hidden_act", "silu") != "silu",
            "more than one label": architecture == REWARD_MODEL and len(data.get("id2label", {"0": ""})) != 1,
        }
        wrong = [name for name, present in unsupported.items() if present]
        if wrong:
            raise CheckpointError(f"{source}: {', '.join(wrong)} not supported; a plain Llama without it is needed")
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        values["architecture"] = architecture
        values["rope_theta"] = float(data.get("rope_theta") or rope.get("rope_theta") or 10000.0)
        values["num_key_value_heads"] = data.get("num_key_value_heads") or data["num_attention_heads"]
        values["head_dim"] = data.get("head_dim") or data["hidden_size"] // data["num_attention_heads"]
        if isinstance(values.get("eos_token_id"), list):
            values["eos_token_id"] = values["eos_token_id"][0]
        return cls(**values)


_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a model with this config, as stored in safetensors."""
    d, wide, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    layer = {
        "input_layernorm.weight": (d,),
        "post_attention_layernorm.weight": (d,),
        "self_attn.q_proj.weight": (queries, d),
        "self_attn.k_proj.weight": (keys, d),
        "self_attn.v_proj.weight": (keys, d),
        "self_attn.o_proj.weight": (d, queries),
        "mlp.gate_proj.weight": (wide, d),
        "mlp.up_proj.weight": (wide, d),
        "mlp.down_proj.weight": (d, wide),
    }
    wanted = {"model.embed_tokens.weight": (config.vocab_size, d), "model.norm.weight": (d,)}
    for index in range(config.num_hidden_layers):
        wanted |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    if config.is_reward_model:
        wanted |= {"score.weight": (1, d), "score.bias": (1,)}
    elif not config.tie_word_embeddings:
        wanted["lm_head.weight"] = (config.vocab_size, d)
    return wanted


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
