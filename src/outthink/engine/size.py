"""What a model of a given shape consists of, and what it needs in memory."""

from __future__ import annotations

from math import prod

from outthink.engine.config import Config

BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}
"""Bytes of a weight of a projection by the type it is computed in."""
_SCALES = {"int8": 4.0, "int4": 4.0 / 32}
"""Bytes of scales (int4: and zeros) beside it: for each output, and for each weight by groups of 32 inputs."""


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a model with this config, as stored in safetensors."""
    d, wide, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    layer: dict[str, tuple[int, ...]] = {
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
    if config.qkv_bias:
        layer |= {f"self_attn.{name}_proj.bias": (n,) for name, n in (("q", queries), ("k", keys), ("v", keys))}
    if config.o_bias:
        layer["self_attn.o_proj.bias"] = (d,)
    if config.qk_norm:
        layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    wanted: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, d)}
    wanted["model.norm.weight"] = (d,)
    for index in range(config.num_hidden_layers):
        wanted |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    if config.is_reward_model:
        wanted |= {"score.weight": (1, d), "score.bias": (1,)}
    elif not config.tie_word_embeddings:
        wanted["lm_head.weight"] = (config.vocab_size, d)
    return wanted


def parameters(config: Config) -> int:
    """Return the number of weights."""
    return sum(prod(shape) for shape in shapes(config).values())
