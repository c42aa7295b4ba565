"""Keys and values: the working rows that attention reads, and the blocks that are kept of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from outthink.engine.checkpoint import Config


class Block(NamedTuple):
    """Keys [layers, kv_heads, head_dim, n] and values [layers, kv_heads, n, head_dim] of n consecutive tokens."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, config: Config, n: int, dtype: torch.dtype) -> Block:
        shape = (config.num_hidden_layers, config.num_key_value_heads)
        return cls(
            torch.empty((*shape, config.head_dim, n), dtype=dtype),
            torch.empty((*shape, n, config.head_dim), dtype=dtype),
        )


class Cache:
    """Contiguous rows of `capacity` tokens. What lies beyond a row's length is finite and never seen (it is masked).

    Keys are kept transposed: the product with a single query is then as fast in a wide row as in a narrow one.
    """

    def __init__(self, config: Config, *, rows: int, capacity: int, dtype: torch.dtype) -> None:
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads)
        self.rows, self.capacity = rows, capacity
        self.keys = torch.zeros((*shape, config.head_dim, capacity), dtype=dtype)
        self.values = torch.zeros((*shape, capacity, config.head_dim), dtype=dtype)

    def write(self, first: int, last: int, *, at: int, block: Block, count: int) -> None:
        """Put the first `count` tokens of `block` at position `at` of every row in first..last-1."""
        self.keys[:, first:last, ..., at : at + count] = block.keys[:, None, ..., :count]
        self.values[:, first:last, :, at : at + count] = block.values[:, None, :, :count]

    def read(self, row: int, start: int, *, into: Block, at: int, count: int) -> None:
        """Copy `count` tokens of a row from `start` on to position `at` of a block."""
        into.keys[..., at : at + count] = self.keys[:, row, ..., start : start + count]
        into.values[:, :, at : at + count] = self.values[:, row, :, start : start + count]

    def move(self, source: int, target: int, *, length: int) -> None:
        """Copy the first `length` tokens of row `source` to row `target`."""
        self.keys[:, target, ..., :length] = self.keys[:, source, ..., :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]


def token_bytes(config: Config, dtype: torch.dtype) -> int:
    """Return the bytes of one token's keys and values over all layers."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * dtype.itemsize
