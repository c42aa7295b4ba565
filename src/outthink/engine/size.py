"""What a model of a given shape consists of, and what it needs in memory."""

from __future__ import annotations

from math import prod

from outthink.core.errors import InvalidInput
from outthink.engine.config import Config

KV_BYTES = 1 << 30
"""Memory for keys and values where nothing else is asked for."""
KINDS = ("float32", "bfloat16", "int8", "int4")
_PROJECTION = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / 32}
"""Bytes of a weight of a projection. int4: with a scale and an offset for each 32 inputs."""
_PAGE = 16  # tokens of a page of keys and values
_LANES = 16  # heads are kept this wide, or a multiple


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


def weight_bytes(config: Config, kind: str) -> int:
    """Return the bytes of the weights as the engine holds them, computing in `kind` (one of `KINDS`).

    Few bits are for the projections of the layers: embeddings and the output layer are bfloat16 then.  A tied output
    layer counts besides the embeddings: it is laid out for products, they are read row by row.
    """
    total = 0.0
    for name, shape in shapes(config).items():
        if len(shape) == 1:
            total += 4 * shape[0]
        elif ".layers." in name:
            total += _PROJECTION[kind] * prod(shape) + (2 * shape[0] if kind == "int8" else 0)
        else:
            total += _plain(kind) * prod(shape)
    if config.tie_word_embeddings and not config.is_reward_model:
        total += _plain(kind) * config.vocab_size * config.hidden_size
    return round(total)


def kv_bytes(config: Config, kind: str) -> int:
    """Return the bytes of the keys and values of one token over all layers, computing in `kind`."""
    width = -(-config.head_dim // _LANES) * _LANES
    return 2 * config.num_hidden_layers * config.num_key_value_heads * width * _plain(kind)


def planned(config: Config, kind: str, *, branches: int, length: int, shared: int = 0, have: int | None = None) -> int:
    """Return the bytes of keys and values of `branches` texts of `length` tokens at the same time, in whole pages.

    shared: how many tokens they begin with alike; those count once, and a begun page once for each branch.
    Raises InvalidInput if there are `have` bytes and that is less, or if the numbers make no plan.
    """
    if branches < 1 or not 0 <= shared <= length or length < 1:
        raise InvalidInput(
            f"{branches} branches of {length} tokens, {shared} of them shared: give one or more of both, and share at "
            "most all"
        )
    common = shared // _PAGE
    pages = common + branches * (-(-length // _PAGE) - common)
    need = pages * _PAGE * kv_bytes(config, kind)
    if have is not None and need > have:
        alike = f", {shared:,} of them shared" if shared else ""
        what = f"{branches} branches x {length:,} tokens{alike}" if branches > 1 else f"one text of {length:,} tokens"
        less = "fewer branches" if branches > 1 else "a shorter context"
        raise InvalidInput(
            f"needs {amount(need)} of KV for {what}; have {amount(have)}: use --kv-bytes (kv_bytes) or {less}"
        )
    return need


def amount(n: int) -> str:
    """Return a number of bytes as it is written: 3.2 GiB."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n} B"


def _plain(kind: str) -> int:
    return 4 if kind == "float32" else 2
