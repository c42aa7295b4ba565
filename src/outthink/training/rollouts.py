"""Sampling for training and evaluation: many continuations of many prefixes, batched over a key-value cache.

Smaller and simpler than the inference engine, and without its promises: draws depend on the batch they are in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from outthink.engine.llama import Llama, rotary, rotated
from outthink.training.batches import padded

END_ID = 0
_ROWS = 256  # rows decoded together: enough to fill one core, and their cache stays in the tens of megabytes


def sample(
    model: Llama,
    prefixes: list[list[int]],
    *,
    n: int,
    temperature: float,
    max_new: int = 110,
    stop: int = END_ID,
    seed: int,
) -> list[list[list[int]]]:
    """Return for each prefix `n` continuations: token lists that end with END_ID or `stop` if `max_new` allows.

    The same model, prefixes and seed give the same draws on the same machine.  Temperature 0 is greedy.
    """
    generator = torch.Generator().manual_seed(seed)
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))  # like lengths together: less padding
    results: list[list[list[int]]] = [[] for _ in prefixes]
    together = max(1, _ROWS // n)
    for at in range(0, len(order), together):
        chosen = order[at : at + together]
        drawn = _decode(model, [prefixes[i] for i in chosen], n, temperature, max_new, stop, generator)
        for index, tokens in zip((i for i in chosen for _ in range(n)), drawn, strict=True):
            results[index].append(tokens)
    return results


@torch.no_grad()
def rewards(model: Llama, rows: list[list[int]], *, tokens: int = 16384) -> list[list[float]]:
    """Return the reward in 0..1 of every prefix of every row: one number per token."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    results: list[list[float]] = [[] for _ in rows]
    while order:
        count = max(1, tokens // len(rows[order[-1]]))
        chosen, order = order[-count:], order[:-count]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.hidden(padded([rows[i] for i in chosen], END_ID, torch.int64))
        scores = torch.sigmoid(model.logits(hidden.float())[..., 0]).tolist()
        for index, values in zip(chosen, scores, strict=True):
            results[index] = values[: len(rows[index])]
    return results


@torch.no_grad()
def _decode(
    model: Llama,
    prefixes: list[list[int]],
    n: int,
    temperature: float,
    max_new: int,
    stop: int,
    generator: torch.Generator,
) -> list[list[int]]:
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    cache = _Cache(model, len(prefixes), int(lengths.max()) + max_new)
    hidden = cache.feed(padded(prefixes, END_ID, torch.int64), torch.zeros_like(lengths))
    last = hidden[torch.arange(len(prefixes)), lengths - 1]
    fork = torch.arange(len(prefixes)).repeat_interleave(n)
    cache.select(fork)
    logits, position, alive = cache.logits(last)[fork], lengths[fork], torch.arange(len(fork))
    drawn: list[list[int]] = [[] for _ in fork]
    ended = torch.zeros(len(fork), dtype=torch.bool)
    for _ in range(max_new):
        chosen = _draw(logits, temperature, generator)
        for row, token, done in zip(alive.tolist(), chosen.tolist(), ended.tolist(), strict=True):
            if not done:
                drawn[row].append(token)
        ended |= (chosen == END_ID) | (chosen == stop)
        if bool(ended.all()):
            break
        if int(ended.sum()) * 4 > len(ended):  # compacting copies the cache, so not for every ended row
            keep = (~ended).nonzero()[:, 0]
            cache.select(keep)
            alive, chosen, position, ended = alive[keep], chosen[keep], position[keep], ended[keep]
        logits = cache.logits(cache.feed(chosen[:, None], position)[:, 0])
        position = position + 1
    return drawn


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


class _Cache:
    """Keys and values of rows of unlike length; row r holds its own tokens at positions 0, 1, ..."""

    def __init__(self, model: Llama, rows: int, room: int) -> None:
        config = model.config
        self._config, self._layers, self._norm = config, model.model.layers, model.model.norm
        self._embed = model.model.embed_tokens.weight.detach()
        head = self._embed if config.tie_word_embeddings else model.lm_head.weight.detach()
        self._head = head.bfloat16()
        self._weights = [
            {name: p.detach().bfloat16() for name, p in layer.named_parameters() if p.dim() == 2}
            for layer in self._layers
        ]
        shape = (rows, config.num_key_value_heads, room, config.head_dim)
        self._keys = [torch.zeros(shape, dtype=torch.bfloat16) for _ in self._layers]
        self._values = [torch.zeros(shape, dtype=torch.bfloat16) for _ in self._layers]

    def select(self, rows: Tensor) -> None:
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.bfloat16(), self._head).float()

    def feed(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Append `tokens` [R, c] at positions start[r], start[r] + 1, ...; return their hidden states [R, c, d]."""
        config = self._config
        rows, count = tokens.shape
        positions = start[:, None] + torch.arange(count)
        length = int(positions.max()) + 1
        cosine, sine = rotary(positions, config)
        hidden_from = torch.arange(length)[None, None] > positions[:, :, None]
        mask = torch.zeros(rows, 1, count, length, dtype=torch.bfloat16).masked_fill_(hidden_from[:, None], -1e4)
        at = torch.arange(rows)[:, None]
        kv, width = config.num_key_value_heads, config.head_dim
        group = config.num_attention_heads // kv
        x = self._embed[tokens]
        for layer, weights, keys, values in zip(self._layers, self._weights, self._keys, self._values, strict=True):
            h = layer.input_layernorm(x).bfloat16()
            q, k, v = (
                F.linear(h, weights[f"self_attn.{name}_proj.weight"]).view(rows, count, -1, width) for name in "qkv"
            )
            keys[at, :, positions] = rotated(k, cosine, sine).bfloat16()
            values[at, :, positions] = v
            q = (rotated(q, cosine, sine) * width**-0.5).bfloat16().transpose(1, 2)
            q = q.reshape(rows * kv, group * count, width)
            seen_keys, seen_values = (held.view(rows * kv, -1, width)[:, :length] for held in (keys, values))
            scores = torch.bmm(q, seen_keys.transpose(1, 2))
            shares = (scores.view(rows, kv * group, count, length) + mask).softmax(-1)
            mixed = torch.bmm(shares.view(rows * kv, group * count, length), seen_values)
            mixed = mixed.view(rows, kv * group, count, width).transpose(1, 2).reshape(rows, count, -1)
            x = x + F.linear(mixed, weights["self_attn.o_proj.weight"])
            h = layer.post_attention_layernorm(x).bfloat16()
            gated = F.silu(F.linear(h, weights["mlp.gate_proj.weight"])) * F.linear(h, weights["mlp.up_proj.weight"])
            x = x + F.linear(gated, weights["mlp.down_proj.weight"])
        return self._norm(x)
