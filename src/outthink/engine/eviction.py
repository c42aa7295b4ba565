"""What stays in memory: who is wanted, what may be evicted, and in which order.

Two counts decide, both kept up to date from a node upwards, and only as far as something changes:

    wants == 0    no prefix, request or pin needs the node, or anything behind it: it is *loose*, and dropped first
    anchors == 1  its own memory is all that holds it: a leaf as far as memory goes, which may be *evicted*

Nobody may take away in a step what was touched in it; a touched node's ancestors are touched too.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count

from outthink.engine.node import Node
from outthink.engine.pages import OutOfPages, Pages


class Keeper:
    """Evicts the loose in order of last use, then the wanted by (priority, last use); every act is O(log n), amortised.

    loose: most pages that stay with contents nobody wants; 0 drops them at once.
    """

    def __init__(self, pages: Pages, *, loose: int) -> None:
        self.pages, self.most, self.clock, self.nodes = pages, loose, 0, 0
        self.root = Node(None, (), start=0, used=0)
        self.root.wants, self.root.anchors = 1, 2  # never loose, never evicted: every walk upwards ends here
        self._fresh: dict[Node, None] = {}  # touched in this step and not wanted (yet), leaves before their ancestors
        self._loose: dict[Node, None] = {}  # in order of last use, leaves before their ancestors; all have memory
        self._queue: list[tuple[float, int, int, Node]] = []  # heap of what may be evicted; stale entries are skipped
        self._aside: list[Node] = []  # came up for eviction, but were touched in this step
        self._numbers = count()

    def make(self, parent: Node, tokens: tuple[int, ...]) -> Node:
        """Return a new child of `parent`, which must have been touched; `touch` the last one made on a path."""
        node = parent.children[tokens] = Node(parent, tokens, start=parent.end, used=self.clock)
        self.nodes += 1
        return node

    def touch(self, node: Node) -> None:
        """Protect `node` and its ancestors until the next step."""
        above: Node | None = node
        while above is not None and above.used != self.clock:
            above.used = self.clock
            above = above.parent
        while not node.wants:
            self._loose.pop(node, None)
            self._fresh.pop(node, None)
            self._fresh[node] = None
            assert node.parent is not None
            node = node.parent

    def support(self, node: Node) -> None:
        """Keep `node`, its ancestors and their memory."""
        self.anchor(node)
        self.want(node)

    def unsupport(self, node: Node) -> None:
        self.unanchor(node)
        self.unwant(node)

    def want(self, node: Node) -> None:
        while True:
            node.wants += 1
            if node.wants > 1:
                return
            self._loose.pop(node, None)
            self._fresh.pop(node, None)
            if node.anchors == 1:
                self._offer(node)
            assert node.parent is not None
            node = node.parent

    def unwant(self, node: Node) -> None:
        while True:
            node.wants -= 1
            if node.wants:
                return
            parent = node.parent
            assert parent is not None
            self._settle(node)
            node = parent

    def anchor(self, node: Node) -> None:
        while True:
            node.anchors += 1
            if node.anchors > 1:
                return
            assert node.parent is not None
            node = node.parent

    def unanchor(self, node: Node) -> None:
        while True:
            node.anchors -= 1
            if node.anchors:
                if node.anchors == 1:
                    self._offer(node)
                return
            assert node.parent is not None
            node = node.parent

    def equip(self, node: Node, page: int, *, ready: int) -> int:
        """Make `page`, with `ready` tokens in it, the memory of `node`; return the page it had before, or -1."""
        before, node.page, node.ready = node.page, page, ready
        node.owed = min(node.owed, len(node.tokens) - ready)
        if ready and node.parent is not None:
            node.parent.computed[node.tokens[0]] = node
        if before < 0:
            self.anchor(node)
            if node.anchors == 1:
                self._offer(node)
        return before

    def room(self, count: int) -> None:
        """Make sure that `count` pages are free. Raises OutOfPages when that cannot be."""
        while self.pages.free < count:
            if not self._evict():
                raise OutOfPages(
                    f"{count} pages are needed, {self.pages.free} of {self.pages.count} are free, and all others are "
                    "in use; let a request finish or be paused first, or give the engine more memory (kv_bytes)"
                )

    def reorder(self, node: Node) -> None:
        """See to a node whose priority has changed."""
        node.queued = -1
        self._offer(node)

    def tick(self) -> None:
        """Begin a step: what was touched before may go; what was only looked at goes, if it is not wanted."""
        self.clock += 1
        fresh, self._fresh = self._fresh, {}
        for node in fresh:
            if node.parent is not None:
                self._settle(node)
        aside, self._aside = self._aside, []
        for node in aside:
            self._offer(node)

    def clear(self) -> None:
        """Let go of everything that is not held or pinned."""
        self.tick()
        while self._evict():
            pass

    def _settle(self, node: Node) -> None:
        """Find the place of a node that nobody wants."""
        if node.used == self.clock:
            self._fresh[node] = None
        elif node.page >= 0 and self.most:
            self._loose[node] = None
            while len(self._loose) > self.most:
                self._drop(next(iter(self._loose)))
        elif not node.children:
            self._drop(node)

    def _drop(self, node: Node) -> None:
        """Remove a loose leaf, and its ancestors as far as they were only there for it."""
        while True:
            parent = node.parent
            assert parent is not None and not node.children and not node.wants
            del parent.children[node.tokens]
            if parent.computed.get(node.tokens[0]) is node:
                del parent.computed[node.tokens[0]]
            self._loose.pop(node, None)
            node.parent, node.queued = None, -1
            self.nodes -= 1
            if node.page >= 0:
                self._empty(node)
                self.unanchor(parent)
            if parent.wants or parent.children or parent.page >= 0 or parent in self._fresh:
                return
            node = parent

    def _empty(self, node: Node) -> None:
        self.pages.give(node.page)
        node.page, node.ready, node.anchors = -1, 0, 0
        node.ends.clear()
        node.values.clear()

    def _offer(self, node: Node) -> None:
        """Queue a node for eviction if that is possible now; whoever makes it possible later offers it again."""
        if node.queued < 0 and _may_go(node):
            if len(self._queue) > 64 + 2 * self.pages.used:
                self._queue = [entry for entry in self._queue if entry[3].queued == entry[2]]
                heapify(self._queue)
            node.queued = next(self._numbers)
            heappush(self._queue, (node.priority, node.used, node.queued, node))

    def _evict(self) -> bool:
        """Free one page; return whether there was one to free."""
        if self._loose:
            self._drop(next(iter(self._loose)))
            return True
        while self._queue:
            priority, used, number, node = heappop(self._queue)
            if node.queued != number:
                continue
            node.queued = -1
            if not _may_go(node):
                continue
            if node.used == self.clock:
                self._aside.append(node)
            elif (node.priority, node.used) != (priority, used):
                self._offer(node)
            else:
                parent = node.parent
                assert parent is not None
                self._empty(node)
                self.unanchor(parent)
                return True
        return False


def _may_go(node: Node) -> bool:
    return node.page >= 0 and node.anchors == 1 and node.wants > 0
