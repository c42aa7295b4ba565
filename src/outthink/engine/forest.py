"""The KV forest: a radix tree whose nodes are pages of 16 tokens, and the branches that grow from it.

Because a node is a page, no node is ever split: full pages are inner nodes or leaves, partial ones are leaves, and two
texts share exactly their common full pages.  A partial page is copied when somebody writes behind it.

    path -> hold -> reserve, compute (the caller writes pages, sets ready) -> fork -> grow ... -> publish -> name

The caller computes; the forest never looks into a page.  Steps begin with `tick`; what was touched in a step is not
taken away in it.  Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from outthink.engine.branch import Branches
from outthink.engine.eviction import Keeper
from outthink.engine.node import Node, Usage, check_counted, check_known
from outthink.engine.pages import PAGE, Pages
from outthink.engine.pins import Pins

_LOOK = 8  # siblings that are compared token by token, newest first; more would cost more than computing 15 tokens


class Forest:
    """Nodes by their tokens from the root on.

    fork, grow, rollback, publish, release_branch: see `Branches`.  pin, unpin: see `Pins`.

    Args:
      pages: the physical memory, of which the forest is the only user.
      pinned: largest share of the pages that may be pinned.
      loose: pages kept for contents that nobody names or holds any more; 0 gives them back at once.
    """

    def __init__(self, pages: Pages, *, pinned: float = 0.2, loose: int = 0) -> None:
        self.pages = pages
        self._keeper = Keeper(pages, loose=loose)
        self._branches, self._pins = Branches(self._keeper), Pins(self._keeper, most=int(pinned * pages.count))
        self.pin, self.unpin = self._pins.pin, self._pins.unpin
        self.fork, self.grow, self.rollback = self._branches.fork, self._branches.grow, self._branches.rollback
        self.publish, self.release_branch = self._branches.publish, self._branches.release

    def __len__(self) -> int:
        return self._keeper.nodes

    @property
    def clock(self) -> int:
        return self._keeper.clock

    def tick(self) -> None:
        """Begin a step.  Nodes that were made by `path` in the last one and neither held nor named are gone."""
        self._keeper.tick()

    def path(self, tokens: Sequence[int]) -> list[Node]:
        """Return the nodes that cover `tokens` from the root on, new ones (without memory) where nothing is known.

        They are touched, hence safe until the next `tick`; hold or name the last one to keep them longer.  Of no
        tokens returns [].
        """
        tokens = tuple(tokens)
        keeper, nodes = self._keeper, []
        node, clock = keeper.root, keeper.clock
        for at in range(0, len(tokens), PAGE):
            piece = tokens[at : at + PAGE]
            node = node.children.get(piece) or keeper.make(node, piece)
            node.used = clock
            nodes.append(node)
        keeper.touch(node)
        return nodes

    def reserve(self, node: Node) -> None:
        """Give `node` a page, if it has none, with what a sibling has computed of the same tokens already in it.

        Hold it first, and reserve its ancestors before it: a page without those before it is of no use.  Raises
        OutOfPages when everything is in use.
        """
        check_known(node)
        self._keeper.touch(node)
        if node.page >= 0:
            return
        self._keeper.room(1)
        page = self.pages.take()
        source, count = _alike(node)
        if source is not None:
            self.pages.copy(source.page, page, count=count)
            node.ends.update((at, end) for at, end in source.ends.items() if at <= count)
            for kind, values in source.values.items():
                node.note(kind, values[:count])
        self._keeper.equip(node, page, ready=count)

    def known(self, node: Node) -> int:
        """Return how many tokens of `node` need not be computed: what it has, or what `reserve` would copy."""
        return node.ready if node.page >= 0 else _alike(node)[1]

    def hold(self, node: Node) -> None:
        """Keep `node`, its ancestors and their memory while a request needs them."""
        check_known(node)
        node.refs += 1
        self._keeper.support(node)

    def release(self, node: Node) -> None:
        """Undo one `hold`."""
        check_counted(node.refs, "held")
        node.refs -= 1
        self._keeper.unsupport(node)

    def name(self, node: Node) -> None:
        """A prefix that ends here has come to life: keep the node, and its memory as long as nothing is worth more."""
        check_known(node)
        node.names += 1
        self._keeper.want(node)

    def unname(self, node: Node) -> None:
        """Undo one `name`."""
        check_counted(node.names, "named")
        node.names -= 1
        self._keeper.unwant(node)

    def prioritise(self, node: Node, priority: float) -> None:
        """Set what `node` is worth to the search: lower goes first when memory is short, then the least recently used.

        Its ancestors stay as long as it does.
        """
        node.priority = priority
        self._keeper.reorder(node)

    @property
    def pinned(self) -> int:
        """The number of pages that pins keep."""
        return self._pins.pages

    def clear(self) -> None:
        """Let go of everything that is not held, pinned or part of a live branch; named nodes stay, without memory."""
        self._keeper.clear()

    def usage(self) -> Usage:
        size = self.pages.page_bytes
        used = self.pages.used
        return Usage(used, self.pages.peak, used * size, self._branches.logical * size, self._keeper.nodes)


def _alike(node: Node) -> tuple[Node | None, int]:
    """Return the sibling that has computed most of the tokens with which `node` begins, and how many; (None, 0)."""
    assert node.parent is not None
    siblings, tokens = node.parent.children, node.tokens
    some = list(islice(reversed(siblings.values()), _LOOK))
    if tokens[0] in node.parent.computed:
        some.append(node.parent.computed[tokens[0]])
    if len(siblings) > _LOOK:  # whoever extends a partial page begins with exactly its tokens
        some += [siblings[tokens[:n]] for n in range(1, len(tokens)) if tokens[:n] in siblings]
    best, most = None, 0
    for other in some:
        count = 0
        for mine, its in zip(tokens, other.tokens[: other.ready], strict=False):
            if mine != its:
                break
            count += 1
        if count > most:
            best, most = other, count
    return best, most
