"""Random Llama models of three sizes and the embedded reasoner, the same weights for every engine.

    python benchmarks/engine/shapes.py [--shapes 15m,110m,500m,reasoner] [--check]

Written once into a cache outside the repository: a Hugging Face folder for each type of number, and GGUF files for
llama.cpp.  No config names an end token, so that every engine draws as many tokens as it is asked for.  --check: greedy
tokens of llama.cpp and of our engine equal those of transformers.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import ask, options

ROOT = Path(__file__).resolve().parent.parent.parent
REASONER = ROOT / "src" / "outthink" / "models" / "embedded" / "reasoner"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SEED = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """prompt, tokens: what one problem is in the benchmarks; steps: decode steps that transformers is timed for."""

    name: str
    hidden: int
    wide: int
    layers: int
    heads: int
    kv_heads: int
    prompt: int = 1024
    tokens: int = 128
    steps: int = 128
    vocabulary: int = 32000
    context: int = 32768


SHAPES = {
    "15m": Shape("15m", 288, 768, 6, 6, 6),
    "110m": Shape("110m", 768, 2048, 12, 12, 12, steps=16),
    "500m": Shape("500m", 1536, 3584, 20, 24, 6, tokens=64, steps=4),
    "reasoner": Shape("reasoner", 0, 0, 0, 0, 0, prompt=160, vocabulary=547, context=320),
}


def folder(name: str, dtype: str, *, cache: Path) -> Path:
    """Return the Hugging Face folder of a shape with weights of `dtype`, written now if it is not there."""
    path = cache / f"{name}-{dtype}"
    if not (path / "config.json").exists():
        path.mkdir(parents=True, exist_ok=True)
        _write(SHAPES[name], path, dtype)
    return path


def gguf(name: str, dtype: str, *, cache: Path, venv: Path) -> Path | str:
    """Return the GGUF file of a shape, written now if it is not there, or the reason why it cannot be."""
    path = cache / f"{name}-{dtype}.gguf"
    if not path.exists():
        source = folder(name, "float32" if dtype == "float16" else dtype, cache=cache)
        job = {"folder": str(source), "file": str(path), "dtype": dtype}
        done = ask("gguf_file", job, venv=venv, threads=1, wait="PASSIVE")
        if "missing" in done:
            return str(done["missing"])
    return path


def prompts(name: str, *, count: int, length: int, cache: Path, seed: int = SEED) -> tuple[list[str], list[list[int]]]:
    """Return `count` texts of `length` tokens that differ from the first token on, and the tokens themselves."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder(name, "float32", cache=cache) / "tokenizer.json"))
    if name == "reasoner":
        from outthink.tasks.word_problems import LEVELS, generate

        told = " ".join(p.prompt for p in generate("heldout", LEVELS[-1], count=8 * count, seed=seed))
        ids = tokenizer.encode(told).ids
        tokens = [ids[i * length : (i + 1) * length] for i in range(count)]
        texts = [tokenizer.decode(each) for each in tokens]
        return texts, [tokenizer.encode(text).ids for text in texts]
    import numpy

    tokens = numpy.random.default_rng(seed).integers(0, SHAPES[name].vocabulary, (count, length)).tolist()
    return ["".join(f"w{i} " for i in each) for each in tokens], tokens


def matmul_parameters(config: dict[str, Any]) -> int:
    """Return the weights that every token is multiplied with: all layers and the output head."""
    d, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    layer = d * (2 * queries + 2 * keys + 3 * config["intermediate_size"])
    return int(config["num_hidden_layers"] * layer + d * config["vocab_size"])


def kv_bytes(config: dict[str, Any], dtype: str) -> int:
    """Return the bytes of keys and values of one token in all layers."""
    width = config["num_key_value_heads"] * config["head_dim"]
    return int(2 * config["num_hidden_layers"] * width * BYTES[dtype])


def attention_flops(config: dict[str, Any], context: float) -> float:
    """Return the floating point operations of one token's attention to `context` tokens in all layers."""
    return float(4 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"] * context)


def config(name: str, *, cache: Path) -> dict[str, Any]:
    return dict(json.loads((folder(name, "float32", cache=cache) / "config.json").read_text("utf-8")))


def _write(shape: Shape, path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    kind = getattr(torch, dtype)
    if shape.name == "reasoner":
        known = json.loads((REASONER / "config.json").read_text("utf-8")) | {"eos_token_id": None}
        weights = load_file(REASONER / "model.safetensors")
        shutil.copy(REASONER / "tokenizer.json", path)
    else:
        known = _config(shape)
        weights = _weights(shape)
        _tokenizer(shape.vocabulary, path / "tokenizer.json")
    save_file({name: tensor.to(kind) for name, tensor in weights.items()}, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(known | {"dtype": dtype}, indent=1), "utf-8")


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden, "intermediate_size": shape.wide, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "hidden_act": "silu",
        "max_position_embeddings": shape.context, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip


def _weights(shape: Shape) -> dict[str, Any]:
    import torch

    draw = torch.Generator().manual_seed(SEED)
    d, keys = shape.hidden, shape.hidden // shape.heads * shape.kv_heads
    sizes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (keys, d), "self_attn.v_proj": (keys, d),
             "self_attn.o_proj": (d, d), "mlp.gate_proj": (shape.wide, d), "mlp.up_proj": (shape.wide, d),
             "mlp.down_proj": (d, shape.wide)}  # fmt: skip
    weights = {"model.embed_tokens.weight": torch.randn(shape.vocabulary, d, generator=draw) / math.sqrt(d)}
    weights["model.norm.weight"] = torch.ones(d)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        weights |= {at + f"{name}.weight": torch.ones(d) for name in ("input_layernorm", "post_attention_layernorm")}
        for name, (out, wide) in sizes.items():
            weights[at + f"{name}.weight"] = torch.randn(out, wide, generator=draw) / math.sqrt(wide)
    return weights


def _tokenizer(size: int, path: Path) -> None:
    """Write a tokenizer whose token i spells "wi " (the space as byte-level tokenizers write it)."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}Ġ": i for i in range(size)}, unk_token="w0Ġ"))
    words = pre_tokenizers.Split(Regex(r"w\d+ "), "isolated")
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, spelled])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def check(name: str, *, cache: Path, venv: Path, threads: int) -> dict[str, Any]:
    """Return whether the greedy tokens of our engine and of llama.cpp are those of transformers, in float32."""
    text, tokens = prompts(name, count=1, length=64, cache=cache, seed=SEED + 1)
    job = {"kind": "greedy", "folder": str(folder(name, "float32", cache=cache)), "texts": text, "prompts": tokens,
           "file": str(gguf(name, "float32", cache=cache, venv=venv)), "dtype": "float32", "tokens": 24}  # fmt: skip
    common = {"threads": threads, "wait": "PASSIVE"}
    wanted = ask("transformers_peer", job, venv=venv, **common)
    others = {
        "ours": ask("ours", job, venv=None, **common),
        "llama.cpp": ask("llama_cpp_peer", job, venv=venv, **common),
    }
    same = {who: found.get("missing") or found["greedy"] == wanted.get("greedy") for who, found in others.items()}
    return {"shape": name, "transformers": wanted.get("missing", True), **same}


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    for each in chosen.shapes.split(","):
        for kind in ("float32", "bfloat16"):
            print(folder(each, kind, cache=chosen.cache), gguf(each, kind, cache=chosen.cache, venv=chosen.venv))
        if chosen.check:
            print(json.dumps(check(each, cache=chosen.cache, venv=chosen.venv, threads=chosen.threads)), flush=True)
