"""Which node of the forest every living prefix ends at: what is named is worth keeping, what nobody can name is not."""

from __future__ import annotations

import weakref
from collections import deque
from functools import partial

from outthink.core.refs import Prefix
from outthink.engine.forest import Forest
from outthink.engine.links import Link, Links
from outthink.engine.node import Node


class Names:
    """Prefixes are known by their digest, so equal ones share a node; each is named once however many are alive."""

    def __init__(self, forest: Forest, links: Links) -> None:
        self._forest, self._links = forest, links
        self._nodes: dict[bytes, Node] = {}
        self._count: dict[bytes, int] = {}
        self._alive: dict[int, weakref.ref[Prefix]] = {}
        self._dead: deque[tuple[int, bytes, weakref.ref[Prefix]]] = deque()

    def __len__(self) -> int:
        return len(self._count)

    def watch(self, prefix: Prefix, *, node: Node | None = None) -> None:
        """Name the node of `prefix` (`node`, if known), and those of its ancestors, until no equal prefix is alive."""
        for link, living in zip(self._links.of(prefix).upwards(), prefix.ancestors(), strict=True):
            name, digest = id(living), living.digest
            known = self._alive.get(name)
            if known is not None and known() is living:
                return  # its ancestors were watched with it
            self._alive[name] = weakref.ref(living, partial(_gone, self._dead, name, digest))
            count = self._count[digest] = self._count.get(digest, 0) + 1
            if count == 1 and link.end:
                if node is not None and living is prefix:
                    self._nodes[digest] = node
                self._forest.name(self.node(link))

    def node(self, link: Link) -> Node:
        """Return the node that `link` ends at, made (without memory) if need be; `link` has tokens up to its end."""
        node = self._nodes.get(link.digest)
        if node is None:
            node = self._forest.path(link.whole())[-1]
            if link.digest in self._count:
                self._nodes[link.digest] = node
        return node

    def tick(self) -> None:
        """Let go of what has died since the last call."""
        while self._dead:
            name, digest, ref = self._dead.popleft()
            if self._alive.get(name) is ref:
                del self._alive[name]
            self._count[digest] -= 1
            if not self._count[digest]:
                del self._count[digest]
                node = self._nodes.pop(digest, None)
                if node is not None:
                    self._forest.unname(node)


def _gone(
    dead: deque[tuple[int, bytes, weakref.ref[Prefix]]], name: int, digest: bytes, ref: weakref.ref[Prefix]
) -> None:
    """Note that a prefix is no more. Any thread may come here, at any time; `tick` does the rest."""
    dead.append((name, digest, ref))
