"""The model runner: puts a batch of tokens, of whatever rows, through the model once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.engine.config import Config
from outthink.engine.fast import Fast
from outthink.engine.levels import Plan
from outthink.engine.linear import Linear, linear
from outthink.engine.native import WIDTHS, kernels
from outthink.engine.pages import Pages
from outthink.engine.plain import Plain
from outthink.engine.rope import frequencies

LANES = 16
"""Heads are this wide, or a multiple: a vector of the C kernels."""
_ROUND = 32
"""Rows of a product come in multiples: in deterministic mode always, so that the kernel of a row is the same, otherwise
from half of it on: oneDNN makes a kernel for every number of rows, and a new one costs more than some empty rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to compute: tokens, positions (int32) and slots (int64: 16 * page + offset) of each [n].

    table [rows, columns] int32: the pages of each row; plan: who reads which of them.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    table: Tensor
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor
    qkv: Callable[[Tensor], Tensor]
    bias: Tensor | None
    gains: tuple[Tensor, Tensor] | None
    out: Callable[[Tensor], Tensor]
    mlp_norm: Tensor
    gate_up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]


class Runner:
    """Weights laid out for inference, of one of `linear.KINDS`.

    value_head: weight [hidden_size] and bias [1] of a reward, sigmoid(weight . hidden + bias), beside the logits.
    dtype: of activations, keys and values, embeddings and head: float32, or bfloat16 for the other kinds.  Residuals,
      norms' and attention's sums are float32 in any case.
    """

    def __init__(
        self,
        config: Config,
        weights: Mapping[str, Tensor],
        *,
        context: int,
        kind: str = "float32",
        deterministic: bool = False,
        value_head: tuple[Tensor, Tensor] | None = None,
        device: str = "cpu",
    ) -> None:
        dtype = self.dtype = torch.float32 if kind == "float32" else torch.bfloat16
        self.config, self.kind, self.device = config, kind, torch.device(device)
        self.deterministic = deterministic
        self.width = -(-config.head_dim // LANES) * LANES
        self._least = 1 if deterministic else _ROUND // 2
        found = kernels() if device == "cpu" and self.width // LANES in WIDTHS else None
        self.native = found is not None
        self.ops = Plain(dtype) if found is None else Fast(found, dtype)
        self._embed = weights["model.embed_tokens.weight"].to(self.device, dtype)
        self._layers = [self._layer(weights, f"model.layers.{i}.") for i in range(config.num_hidden_layers)]
        self._norm = self._plain(weights, "model.norm.weight")
        head = "score" if config.is_reward_model else "lm_head"
        tied = not config.is_reward_model and config.tie_word_embeddings
        self._head = Linear(self._embed if tied else weights[f"{head}.weight"].to(self.device, dtype))
        self._bias = self._plain(weights, f"{head}.bias")
        self._value = value_head
        inverse, factor = frequencies(config)
        angles = torch.arange(context + 1, dtype=torch.float32)[:, None] * inverse
        self._turns = (angles.cos() * factor).to(self.device), (angles.sin() * factor).to(self.device)

    @property
    def judges(self) -> bool:
        """Whether it gives rewards: a reward model, or a language model with a value head."""
        return self.config.is_reward_model or self._value is not None

    @torch.inference_mode()
    def run(self, batch: Batch, pages: Pages, *, wanted: Tensor | None = None) -> Tensor:
        """Compute the tokens, write their keys and values into `pages`; return normed hidden states, float32.

        [n, hidden_size], or of the tokens numbered in `wanted` alone.
        """
        x = self._through(batch, pages, None)
        x = x[: len(batch.tokens)] if wanted is None else x[wanted]
        return self.ops.final(x, self._norm, self.config.rms_norm_eps)

    @torch.inference_mode()
    def broken(self, batch: Batch, pages: Pages) -> str:
        """Return where numbers stop being numbers: the first layer whose output is not finite, or "the head"."""
        seen: list[bool] = []
        self._through(batch, pages, seen)
        return next((f"layer {i}" for i, fine in enumerate(seen) if not fine), "the norm or the head after the layers")

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, vocabulary] of hidden states [n, hidden_size], float32."""
        return self._headed(hidden)[: len(hidden)]

    @torch.inference_mode()
    def rewards(self, hidden: Tensor) -> Tensor:
        """Return the reward in [0, 1] [n] of hidden states [n, hidden_size]; where the model `judges`."""
        if self._value is not None:
            weight, bias = self._value
            rows = F.pad(hidden, (0, 0, 0, self._more(len(hidden))))  # a sum over one row alone has other bits
            return (rows * weight.to(hidden)).sum(-1).add(bias.to(hidden)).sigmoid().flatten()[: len(hidden)]
        return self._headed(hidden).sigmoid()[: len(hidden), 0]

    def _more(self, rows: int) -> int:
        """Return how many empty rows go beside so many."""
        return -rows % _ROUND if rows >= self._least else 0

    def _headed(self, hidden: Tensor) -> Tensor:
        out = self._head(F.pad(hidden, (0, 0, 0, self._more(len(hidden)))).to(self.dtype)).float()
        return out if self._bias is None else out + self._bias

    def _through(self, batch: Batch, pages: Pages, fine: list[bool] | None) -> Tensor:
        config, ops, eps = self.config, self.ops, self.config.rms_norm_eps
        more = self._more(len(batch.tokens))
        tokens, positions = F.pad(batch.tokens, (0, more)), F.pad(batch.positions, (0, more))
        slots, seen = F.pad(batch.slots, (0, more), value=-1), positions + 1
        x = F.embedding(tokens, self._embed).float()
        delta = None
        for layer, keys, values in zip(self._layers, pages.keys, pages.values, strict=True):
            qkv = layer.qkv(ops.norm(x, delta, layer.norm, eps))
            queries = ops.spread(
                qkv, keys, values, turns=self._turns, bias=layer.bias, gains=layer.gains, positions=positions,
                slots=slots, heads=config.num_attention_heads, size=config.head_dim, eps=eps,
            )  # fmt: skip
            mixed = ops.attend(
                queries, keys, values, table=batch.table, seen=seen, plan=batch.plan, window=config.sliding_window or 0
            )
            mixed = mixed[..., : config.head_dim].reshape(len(tokens), -1).to(self.dtype)
            delta = layer.down(ops.gate(layer.gate_up(ops.norm(x, layer.out(mixed), layer.mlp_norm, eps))))
            if fine is not None:
                fine.append(bool((x + delta)[: len(batch.tokens)].isfinite().all()))
        return x + delta

    def _plain(self, weights: Mapping[str, Tensor], name: str) -> Tensor:
        return weights[name].to(self.device, torch.float32).contiguous() if name in weights else None  # type: ignore[return-value]

    def _layer(self, weights: Mapping[str, Tensor], prefix: str) -> _Layer:
        attention = prefix + "self_attn."

        def joined(*names: str) -> Tensor:
            return torch.cat([weights[f"{prefix}{name}.weight"].to(self.device) for name in names])

        def laid(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
            return linear(weight, bias, kind=self.kind)

        biases = [self._plain(weights, f"{attention}{part}_proj.bias") for part in "qkv"]
        gains = [self._plain(weights, f"{attention}{part}_norm.weight") for part in "qk"]
        return _Layer(
            norm=self._plain(weights, prefix + "input_layernorm.weight"),
            qkv=laid(joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            bias=None if biases[0] is None else torch.cat(biases),
            gains=None if gains[0] is None else (gains[0], gains[1]),
            out=laid(joined("self_attn.o_proj"), self._plain(weights, f"{attention}o_proj.bias")),
            mlp_norm=self._plain(weights, prefix + "post_attention_layernorm.weight"),
            gate_up=laid(joined("mlp.gate_proj", "mlp.up_proj")),
            down=laid(joined("mlp.down_proj")),
        )
