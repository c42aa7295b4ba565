"""Llama as a plain torch module: what training differentiates and what the engine is checked against.

Parameter names are those of transformers, so `state_dict()` is what `checkpoint.save_checkpoint` writes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from outthink.core.errors import Unsupported
from outthink.engine.config import Config
from outthink.engine.rope import frequencies


class Norm(nn.Module):
    """Root-mean-square norm with a learned gain, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Causal grouped-query attention with half-split rotary positions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        queries, keys = self.heads * self.width, self.kv_heads * self.width
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q = rotated(self.q_proj(x).view(rows, length, self.heads, self.width), cosine, sine)
        k = rotated(self.k_proj(x).view(rows, length, self.kv_heads, self.width), cosine, sine)
        v = self.v_proj(x).view(rows, length, self.kv_heads, self.width)
        # bmm and softmax instead of F.scaled_dot_product_attention: on CPU its backward takes half of a step.
        group = self.heads // self.kv_heads
        q = (q * self.width**-0.5).to(v.dtype).transpose(1, 2).reshape(rows * self.kv_heads, group * length, self.width)
        k = k.to(v.dtype).transpose(1, 2).reshape(rows * self.kv_heads, length, self.width)
        v = v.transpose(1, 2).reshape(rows * self.kv_heads, length, self.width)
        scores = torch.bmm(q, k.transpose(1, 2)).view(rows, self.heads, length, length) + mask.to(v.dtype)
        shares = scores.softmax(-1, dtype=scores.dtype).view(rows * self.kv_heads, group * length, length)
        mixed = torch.bmm(shares, v).view(rows, self.heads, length, self.width)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, self.heads * self.width))


class Mlp(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cosine, sine, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """A language model, or a reward model if the config says so.

    Weights start for training: residual branches at zero, so that every layer begins as the identity.  Raises
    Unsupported for what the other families have besides: the engine serves them, training is for plain Llamas.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.qkv_bias or config.o_bias or config.qk_norm or config.sliding_window is not None:
            raise Unsupported(f"training knows plain Llamas, not {config.architecture} with biases, norms or windows")
        self.config = config
        self.model = Trunk(config)
        if config.is_reward_model:
            self.score = nn.Linear(config.hidden_size, 1)
        elif not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "score.weight", "score.bias")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the normed hidden states [B, T, d] of `tokens` [B, T]; row positions count from 0."""
        cosine, sine = rotary(torch.arange(tokens.shape[1], device=tokens.device), self.config)
        mask = torch.full((tokens.shape[1],) * 2, -1e4, device=tokens.device).triu_(1)
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cosine, sine, mask)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return next-token logits [..., vocab], or for a reward model the score [..., 1], of hidden states."""
        if self.config.is_reward_model:
            return self.score(hidden)
        head = self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head
        return F.linear(hidden, head.weight)


def rotary(positions: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines [..., 1, head_dim/2] that rotate queries and keys at `positions` [...]."""
    turns, factor = frequencies(config)
    angles = positions.float()[..., None] * turns.to(positions.device)
    return angles.cos()[..., None, :] * factor, angles.sin()[..., None, :] * factor


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return `x` [..., heads, head_dim] with its first and second half rotated against each other."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
