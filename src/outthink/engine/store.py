"""The prefix store: what has been computed for each piece of text, bounded in bytes, least recently used first out.

The seam for a better one (pages, a radix forest): the engine asks for the nodes of a path and reserves their memory;
the filler and the decoder read and write blocks of keys and values in them.
"""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from outthink.core.refs import Prefix
from outthink.engine.cache import Block, token_bytes
from outthink.engine.checkpoint import Config
from outthink.engine.links import Link


@dataclass(slots=True, eq=False)
class Node:
    """What is known of one piece.

    ready: how many of its tokens have keys and values in `block`.
    hidden: the hidden state after token number `ready`, None where it was not kept.
    values: of each token, its reward (reward models) or its log-probability (where somebody asked).
    owed: tokens whose computation was paid by who wrote them and is still to come (the last one drawn).
    """

    tokens: tuple[int, ...]
    ready: int = 0
    block: Block | None = None
    hidden: Tensor | None = None
    values: Tensor | None = None
    owed: int = 0
    touched: int = 0

    @property
    def complete(self) -> bool:
        return self.ready == len(self.tokens) and self.hidden is not None


class Store:
    """Nodes by the digest of their prefix. What is used in the current step is never let go of."""

    def __init__(self, config: Config, *, dtype: torch.dtype, limit: int) -> None:
        self.limit, self.used, self.clock = limit, 0, 0
        self._config, self._dtype, self._token_bytes = config, dtype, token_bytes(config, dtype)
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        self._alive: dict[int, weakref.ref[Prefix]] = {}
        self._count: Counter[bytes] = Counter()
        self._dead: deque[tuple[int, bytes, weakref.ref[Prefix]]] = deque()

    def __len__(self) -> int:
        return len(self._nodes)

    def path(self, links: list[Link]) -> list[Node]:
        """Return the nodes of `links`, new ones where nothing is known, and mark them as in use in this step."""
        nodes: list[Node] = []
        for link in links:
            node = self._nodes.get(link.digest)
            if node is None:
                node = self._nodes[link.digest] = Node(link.tokens)
            node.touched = self.clock
            nodes.append(node)
        for link in reversed(links):  # ancestors last: a descendant without its ancestors is of no use
            self._nodes.move_to_end(link.digest)
        return nodes

    def reserve(self, node: Node) -> Block:
        """Return the node's block, making it (and room for it) if need be."""
        if node.block is None:
            node.block = Block.empty(self._config, len(node.tokens), self._dtype)
            self.used += self._bytes(node)
            self._shrink()
        return node.block

    def add(self, digest: bytes, node: Node) -> None:
        """Keep a node that somebody else computed, unless one is known."""
        if digest not in self._nodes:
            node.touched = self.clock
            self._nodes[digest] = node
            self.used += self._bytes(node)
            self._shrink()

    def tick(self) -> None:
        """Begin a step: let go of what nobody can name any more, then of the least recently used above the limit."""
        self.clock += 1
        while self._dead:
            name, digest, ref = self._dead.popleft()
            if self._alive.get(name) is ref:
                del self._alive[name]
            self._count[digest] -= 1
            if not self._count[digest]:
                del self._count[digest]
                self._drop(digest)
        self._shrink()

    def watch(self, prefix: Prefix) -> None:
        """Let go of a prefix (and each of its ancestors) when no equal one is alive."""
        for node in prefix.ancestors():
            name, digest = id(node), node.digest
            known = self._alive.get(name)
            if known is not None and known() is node:
                return  # its ancestors were watched with it
            self._alive[name] = weakref.ref(node, partial(_gone, self._dead, name, digest))
            self._count[digest] += 1

    def clear(self) -> None:
        """Let go of everything."""
        for digest in list(self._nodes):
            self._drop(digest)

    def _bytes(self, node: Node) -> int:
        return 0 if node.block is None else len(node.tokens) * self._token_bytes

    def _drop(self, digest: bytes) -> None:
        node = self._nodes.pop(digest, None)
        if node is not None:
            self.used -= self._bytes(node)

    def _shrink(self) -> None:
        while self.used > self.limit:
            digest, node = next(iter(self._nodes.items()))
            if node.touched == self.clock:
                return  # in use: over the limit until the step is done
            self._drop(digest)


def _gone(
    dead: deque[tuple[int, bytes, weakref.ref[Prefix]]], name: int, digest: bytes, ref: weakref.ref[Prefix]
) -> None:
    """Note that a prefix is no more. Any thread may come here, at any time; `tick` does the rest."""
    dead.append((name, digest, ref))
