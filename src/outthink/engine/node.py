"""The nouns of the forest: a page that texts share, a text that is being written, and what all of it takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from outthink.engine.pages import PAGE


class Node:
    """At most 16 tokens behind those of its parent, and what is known of them.

    Fields that whoever computes reads and writes:
      ready: how many of its tokens have keys and values in `page`, counted from its first.
      ends: the hidden state after the first n of its tokens, by n (1 to 16), where somebody wanted it kept.
      values: "reward" and "logprob" of each token, float32 [len(tokens)], NaN where unknown.
      owed: tokens whose computation was paid and is still to come (drawn, but not computed).
    Fields that only the forest writes:
      parent (None at the root and after the node was let go of), tokens, start (position of its first token),
      children (by their tokens), computed (by its first token, the child that was computed last), page (-1: no memory),
      refs: requests and branches that end here.  names: prefixes that end here.
      used: the step in which it was last touched.  priority: see Forest.prioritise.
      pins: pins here, and children with pins below.
      wants: refs, names, own pins, and children that are wanted: at zero nobody asks for it or for anything behind it.
      anchors: refs, own pins, 1 for memory, and children that are anchored: at 1 with memory it can be evicted.
      queued: the number of its entry in the eviction queue, -1 without.
    """

    __slots__ = (
        "anchors",
        "children",
        "computed",
        "ends",
        "names",
        "owed",
        "page",
        "parent",
        "pins",
        "priority",
        "queued",
        "ready",
        "refs",
        "start",
        "tokens",
        "used",
        "values",
        "wants",
    )

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], *, start: int, used: int) -> None:
        self.parent, self.tokens, self.start, self.used = parent, tokens, start, used
        self.children: dict[tuple[int, ...], Node] = {}
        self.computed: dict[int, Node] = {}
        self.ends: dict[int, Tensor] = {}
        self.values: dict[str, NDArray[np.float32]] = {}
        self.page = self.queued = -1
        self.ready = self.owed = self.refs = self.names = self.pins = self.wants = self.anchors = 0
        self.priority = 0.0

    def __repr__(self) -> str:
        place = f"{self.start}..{self.start + len(self.tokens)}"
        return f"Node({place}, page={self.page}, ready={self.ready}, refs={self.refs}, names={self.names})"

    @property
    def full(self) -> bool:
        return len(self.tokens) == PAGE

    @property
    def complete(self) -> bool:
        """Whether all of its tokens have keys and values (its last hidden state is another matter: see `ends`)."""
        return self.ready == len(self.tokens)

    @property
    def end(self) -> int:
        """The number of tokens from the root to the end of this node."""
        return self.start + len(self.tokens)

    def path(self) -> list[Node]:
        """Return the nodes from the root's child to this one."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    def note(self, kind: str, values: NDArray[np.float32], *, first: int = 0) -> None:
        """Remember values of its tokens from offset `first` on; NaN is no news, and what lies beyond it is ignored."""
        known = self.values.setdefault(kind, np.full(len(self.tokens), np.nan, dtype=np.float32))
        at = known[first : first + len(values)]
        at[:] = np.where(np.isnan(values[: len(at)]), at, values[: len(at)])

    def advance(self, count: int) -> int:
        """Note that `count` tokens more were computed; return how many of them nobody had paid for."""
        if self.parent is not None:
            self.parent.computed[self.tokens[0]] = self
        owed = min(self.owed, count)
        self.ready, self.owed = self.ready + count, self.owed - owed
        return count - owed


@dataclass(slots=True, eq=False)
class Branch:
    """A text that is being written behind a computed path: only its own pages are new.

    path: the nodes it continues, the last of which may be partial.
    pages: the block table from position 0 on: `shared` pages that belong to nodes, then private ones.
    shared: includes a partial last page until something is written behind it; then that page is copied.
    start: tokens of the path.  length: tokens that there is room for, at least `start`.
    """

    path: tuple[Node, ...]
    pages: list[int]
    shared: int
    start: int
    length: int
    live: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What is in memory now.

    pages, physical_bytes: in use, each counted once.  peak: the most pages ever.
    logical_bytes: what the live branches would take if nothing were shared.
    """

    pages: int
    peak: int
    physical_bytes: int
    logical_bytes: int
    nodes: int


def check_known(node: Node) -> None:
    """Raise ValueError for a node that is no longer part of the forest."""
    if node.parent is None:
        raise ValueError(f"{node!r} was let go of; ask path() again, and hold or name it within the step")


def check_counted(count: int, what: str) -> None:
    """Raise ValueError when there is nothing to undo."""
    if count <= 0:
        raise ValueError(f"the node is not {what}; undo only what was done, and once")
