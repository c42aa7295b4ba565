"""The shape of a model, under the names of its config.json.  No torch: what is loadable is known without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from outthink.engine.errors import CheckpointError
from outthink.engine.scaling import RopeScaling, read_rope

FAMILIES = {"Llama": "llama", "Mistral": "mistral", "Qwen2": "qwen2", "Qwen3": "qwen3"}
LANGUAGE_MODEL = "LlamaForCausalLM"
REWARD_MODEL = "LlamaForTokenClassification"
_REWARD = "ForTokenClassification"
ARCHITECTURES = tuple(f"{family}{kind}" for kind in ("ForCausalLM", _REWARD) for family in FAMILIES)

_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_CONTEXT = {"Llama": 2048, "Mistral": 131072, "Qwen2": 32768, "Qwen3": 32768}  # of transformers, where a file is silent


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a Llama, Mistral, Qwen2 or Qwen3 model.

    eos_token_ids: every token that ends a text.
    qkv_bias, o_bias: the projections of attention have biases (Qwen2: the first three; Llama may have all four).
    qk_norm: queries and keys are normed per head before they are rotated (Qwen3).
    sliding_window: a token attends to this many positions, its own among them; None: to all before it.  Never set
      where it is no smaller than the context.
    rope_scaling: None for plain rotary positions.
    """

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
    eos_token_ids: tuple[int, ...] = ()
    architecture: str = LANGUAGE_MODEL
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    rope_scaling: RopeScaling | None = None

    @property
    def is_reward_model(self) -> bool:
        return self.architecture.endswith(_REWARD)

    @property
    def family(self) -> str:
        """Return "Llama", "Mistral", "Qwen2" or "Qwen3"."""
        return self.architecture.partition("For")[0]

    @property
    def eos_token_id(self) -> int | None:
        """Return the first of the tokens that end a text, None if there is none."""
        return self.eos_token_ids[0] if self.eos_token_ids else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of config.json, with the fields that transformers needs beside ours."""
        data = asdict(self)
        for name in ("architecture", "eos_token_ids", "qkv_bias", "o_bias", "qk_norm", "rope_scaling"):
            del data[name]
        ends = self.eos_token_ids
        data |= {"architectures": [self.architecture], "model_type": FAMILIES[self.family], "hidden_act": "silu"}
        data |= {"eos_token_id": list(ends) if len(ends) > 1 else self.eos_token_id, "mlp_bias": False}
        data |= {"attention_bias": self.o_bias, "use_sliding_window": self.sliding_window is not None}
        data |= {"attention_dropout": 0.0, "dtype": "float32", "pad_token_id": None, "use_cache": True}
        scaling = {} if self.rope_scaling is None else self.rope_scaling.to_json()
        data["rope_parameters"] = {"rope_type": "default", "rope_theta": self.rope_theta} | scaling
        if scaling:
            data["rope_scaling"] = scaling
        if self.sliding_window is not None:
            data["max_window_layers"] = 0
        if self.is_reward_model:
            data |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}, "classifier_dropout": 0.0}
        return data

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], *, generation: Mapping[str, Any] | None = None, source: str = "config.json"
    ) -> Config:
        """Return the Config described by the parsed config.json `data`.

        generation: the parsed generation_config.json, whose ends of text go before those of config.json.

        Raises CheckpointError, naming `source`, if a field is missing, contradicts another or asks for what is not
        supported (another architecture, biases in the MLP, another activation, windows in some layers only,
        more than one label, weights that are quantised already).
        """
        architecture = (data.get("architectures") or [None])[0]
        if architecture not in ARCHITECTURES:
            raise CheckpointError(
                f"{source}: architecture {architecture!r} is not supported; use one of {', '.join(ARCHITECTURES)}"
            )
        family = architecture.partition("For")[0]
        _check(data, architecture, source=source)
        heads, context = data["num_attention_heads"], data.get("max_position_embeddings") or _CONTEXT[family]
        theta, scaling = read_rope(data, context=context, source=source)
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        values |= {
            "architecture": architecture,
            "max_position_embeddings": context,
            "num_key_value_heads": data.get("num_key_value_heads") or (8 if family == "Mistral" else heads),
            "head_dim": data.get("head_dim") or (128 if family == "Qwen3" else data["hidden_size"] // heads),
            "tie_word_embeddings": bool(data.get("tie_word_embeddings", False)),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "eos_token_ids": _ends(generation or {}) or _ends(data),
            "qkv_bias": family == "Qwen2" or bool(data.get("attention_bias")),
            "o_bias": family != "Qwen2" and bool(data.get("attention_bias")),
            "qk_norm": family == "Qwen3",
            "sliding_window": _window(data, family, context, source=source),
        }
        if heads % values["num_key_value_heads"] or values["head_dim"] % 2:
            raise CheckpointError(
                f"{source}: {heads} heads, {values['num_key_value_heads']} key-value heads of width "
                f"{values['head_dim']}; heads must be a multiple of key-value heads, and the width even"
            )
        return cls(**values)


def read_config(folder: str | Path) -> Config:
    """Return the Config of the checkpoint in `folder`: of config.json, with the ends of text of
    generation_config.json if there is one.  Raises CheckpointError for what cannot be used."""
    folder = Path(folder)
    path = folder / "generation_config.json"
    generation = _read_json(path) if path.is_file() else None
    return Config.from_json(
        _read_json(existing(folder, "config.json")), generation=generation, source=str(folder / "config.json")
    )


def existing(folder: Path, name: str) -> Path:
    """Return the path of a file of a checkpoint; raise CheckpointError if it is not there."""
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; a checkpoint folder holds config.json, model.safetensors and tokenizer.json"
        )
    return path


def _check(data: Mapping[str, Any], architecture: str, *, source: str) -> None:
    missing = [name for name in _REQUIRED if name not in data]
    if missing:
        raise CheckpointError(f"{source}: missing {', '.join(missing)}; copy the model's own config.json")
    optional = ("num_key_value_heads", "head_dim", "max_position_embeddings")
    for name in (*_REQUIRED, *(name for name in optional if data.get(name) is not None)):
        if not isinstance(data[name], int) or isinstance(data[name], bool) or data[name] < 1:
            raise CheckpointError(f"{source}: {name} is {data[name]!r}; a whole number of 1 or more is needed")
    labels = len(data.get("id2label", {"0": ""}))
    unsupported = {
        "mlp_bias": bool(data.get("mlp_bias")),
        f"hidden_act {data.get('hidden_act')!r} (silu is)": data.get("hidden_act", "silu") != "silu",
        f"{labels} labels (one is)": architecture.endswith(_REWARD) and labels != 1,
    }
    wrong = [name for name, present in unsupported.items() if present]
    if wrong:
        raise CheckpointError(f"{source}: {', '.join(wrong)} not supported; take a model without it")
    if data.get("quantization_config"):
        raise CheckpointError(
            f"{source}: the weights are stored quantised (quantization_config), which is not supported; take the "
            'original weights and load them with dtype="int8" or "int4"'
        )


def _ends(data: Mapping[str, Any]) -> tuple[int, ...]:
    ends = data.get("eos_token_id")
    return () if ends is None else tuple(ends) if isinstance(ends, list) else (ends,)


def _window(data: Mapping[str, Any], family: str, context: int, *, source: str) -> int | None:
    """Return the window of all layers; where a file is silent, that of transformers."""
    if family == "Llama" or (family.startswith("Qwen") and not data.get("use_sliding_window")):
        return None
    window = data.get("sliding_window", 4096)
    if window is None or window >= context:
        return None
    layers = data["num_hidden_layers"]
    full = min(layers, data.get("max_window_layers", 28)) if family.startswith("Qwen") else 0
    kinds = data.get("layer_types") or ["full_attention"] * full + ["sliding_attention"] * (layers - full)
    if len(set(kinds[:layers])) > 1:
        raise CheckpointError(
            f"{source}: a sliding window in some layers only is not supported; set use_sliding_window to false where "
            f"texts stay below {window} tokens (nothing changes for those)"
        )
    return window if kinds[0] == "sliding_attention" else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy the model's own {path.name}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds a {type(data).__name__}, a JSON object is needed")
    return data
