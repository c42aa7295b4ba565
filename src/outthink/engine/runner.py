"""The model runner: continues cached rows by tokens and gives their hidden states, logits or rewards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.engine.cache import Cache
from outthink.engine.checkpoint import Config
from outthink.engine.linear import Linear

_LANE = 32
"""Contexts are padded to a multiple of this, widths and (in deterministic mode) rows too: no vector kernel then has a
remainder to treat differently, and zeros added at the end of a sum do not change it."""
_QUERIES = 4
"""Least number of query rows in an attention product: below it the kernel is another one, with other bits."""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Runner:
    """Weights laid out for inference: projections joined, rotary pairs adjacent, the attention scale in the queries."""

    def __init__(
        self, config: Config, weights: dict[str, Tensor], *, context: int, dtype: torch.dtype, deterministic: bool
    ) -> None:
        self.config, self.dtype, self._round = config, dtype, _LANE if deterministic else 1
        plain = {name: tensor.float() for name, tensor in weights.items()}
        self._embed = plain["model.embed_tokens.weight"].contiguous()
        self._layers = [_layer(config, plain, f"model.layers.{i}.", dtype) for i in range(config.num_hidden_layers)]
        self._norm = plain["model.norm.weight"]
        head = "score" if config.is_reward_model else "lm_head"
        self._head = Linear(plain.get(f"{head}.weight", self._embed).to(dtype))
        self._bias = plain.get(f"{head}.bias")
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        angles = torch.arange(context + 1, dtype=torch.float64)[:, None] * config.rope_theta**-half
        self._turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)

    @torch.inference_mode()
    def extend(self, cache: Cache, tokens: Tensor, start: Tensor) -> Tensor:
        """Write `tokens` [P, C] into rows 0..P-1 of `cache` at positions start[p], start[p] + 1, ...

        Returns the normed hidden state of each token [P, C, hidden_size], float32.  Rows may be padded at their end
        with any token: what is written for padding lies beyond the row's length.
        """
        config, (rows, count) = self.config, tokens.shape
        heads, kv, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        positions = start[:, None] + torch.arange(count)
        length = min(cache.capacity, -(-(int(start.max()) + count) // _LANE) * _LANE)
        unseen = torch.arange(length) > positions[:, :, None]
        mask = torch.zeros(unseen.shape, dtype=self.dtype).masked_fill_(unseen, float("-inf"))
        positions = positions.clamp_(max=cache.capacity - 1)
        turns = self._turns[positions.reshape(-1).clamp(max=len(self._turns) - 1)][:, None]
        total = rows * count
        padded = -(-total // self._round) * self._round
        x = F.embedding(F.pad(tokens.reshape(-1), (0, padded - total)), self._embed)
        index = torch.arange(rows)[:, None]
        for number, layer in enumerate(self._layers):
            qkv = layer.qkv(_normed(x, layer.norm, config).to(self.dtype))[:total]
            turned = qkv[:, : (heads + kv) * width].float().reshape(total, heads + kv, width // 2, 2)
            turned = torch.view_as_real(torch.view_as_complex(turned) * turns).to(self.dtype)
            turned = turned.view(rows, count, heads + kv, width)
            keys, values = cache.keys[number, :rows], cache.values[number, :rows]
            keys[index, :, :, positions] = turned[:, :, heads:]
            values[index, :, positions] = qkv[:, (heads + kv) * width :].view(rows, count, kv, width)
            mixed = _attend(turned[:, :, :heads], keys[..., :length], values[:, :, :length], mask)
            mixed = F.pad(mixed.reshape(total, heads * width), (0, 0, 0, padded - total))
            x = x + layer.out(mixed).float()
            gate, up = layer.gate_up(_normed(x, layer.mlp_norm, config).to(self.dtype)).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up).float()
        return _normed(x[:total], self._norm, config).view(rows, count, -1)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [N, vocabulary] of hidden states [N, hidden_size], float32."""
        return self._headed(hidden)[: len(hidden)]

    @torch.inference_mode()
    def rewards(self, hidden: Tensor) -> Tensor:
        """Return the reward in [0, 1] [N] of hidden states [N, hidden_size]; reward models only."""
        return self._headed(hidden).sigmoid()[: len(hidden), 0]

    def _headed(self, hidden: Tensor) -> Tensor:
        out = self._head(F.pad(hidden, (0, 0, 0, -len(hidden) % self._round)).to(self.dtype)).float()
        return out if self._bias is None else out + self._bias


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return attention [P, C, heads, width] of queries [P, C, heads, width] over keys [P, kv, width, L].

    Query heads that share a key head are rows of one product, so that every key is read once; mask is [P, C, L].
    """
    rows, count, heads, width = queries.shape
    kv, length = keys.shape[1], keys.shape[3]
    group = heads // kv
    queries = queries.view(rows, count, kv, group, width).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(rows * kv, group * count, width)
    queries = F.pad(queries, (0, 0, 0, max(0, _QUERIES - group * count)))
    scores = torch.bmm(queries, keys.reshape(rows * kv, width, length))
    seen = scores[:, : group * count].view(rows, kv, group, count, length)
    seen += mask[:, None, None]
    mixed = torch.bmm(scores.softmax(-1), values.reshape(rows * kv, length, width))[:, : group * count]
    return mixed.reshape(rows, kv, group, count, width).permute(0, 3, 1, 2, 4).reshape(rows, count, heads, width)


def _normed(x: Tensor, gain: Tensor, config: Config) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), gain, config.rms_norm_eps)


def _layer(config: Config, weights: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> _Layer:
    def named(name: str) -> Tensor:
        return weights[f"{prefix}{name}.weight"]

    width = config.head_dim
    adjacent = torch.arange(width).view(2, width // 2).t().reshape(-1)  # checkpoints rotate first half against second

    def paired(weight: Tensor) -> Tensor:
        return weight.view(-1, width, weight.shape[1])[:, adjacent].reshape(weight.shape)

    queries = paired(named("self_attn.q_proj")) * width**-0.5
    wide = -config.intermediate_size % _LANE
    gate, up = (F.pad(named(f"mlp.{name}_proj"), (0, 0, 0, wide)) for name in ("gate", "up"))
    return _Layer(
        norm=named("input_layernorm"),
        qkv=Linear(torch.cat([queries, paired(named("self_attn.k_proj")), named("self_attn.v_proj")]).to(dtype)),
        out=Linear(named("self_attn.o_proj").to(dtype)),
        mlp_norm=named("post_attention_layernorm"),
        gate_up=Linear(torch.cat([gate, up]).to(dtype)),
        down=Linear(F.pad(named("mlp.down_proj"), (0, wide)).to(dtype)),
    )
