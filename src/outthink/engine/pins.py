"""Pins: paths that stay in memory whatever comes, as long as they take no more than their share of it."""

from __future__ import annotations

from outthink.core.errors import InvalidInput
from outthink.engine.eviction import Keeper
from outthink.engine.node import Node, check_counted, check_known


class Pins:
    """Counts pages, not pins: what two pinned paths share is counted once. `most`: pages that may be pinned."""

    def __init__(self, keeper: Keeper, *, most: int) -> None:
        self.pages, self.most = 0, most
        self._keeper = keeper
        self._own: dict[Node, int] = {}

    def pin(self, node: Node) -> None:
        """Keep `node`, its ancestors and their memory until `unpin`, names or not.

        Raises InvalidInput when more pages would be pinned than may be.
        """
        check_known(node)
        new, above = 0, node
        while not above.pins and above.parent is not None:
            new, above = new + 1, above.parent
        if self.pages + new > self.most:
            raise InvalidInput(
                f"pinning {node.end} tokens takes {new} pages more; {self.pages} of the {self.most} pages that may be "
                "pinned are; unpin something first, pin a shorter prefix, or give the engine more memory (kv_bytes)"
            )
        self._own[node] = self._own.get(node, 0) + 1
        self._keeper.support(node)
        self._add(node, 1)

    def unpin(self, node: Node) -> None:
        """Undo one `pin`."""
        check_counted(self._own.get(node, 0), "pinned")
        self._own[node] -= 1
        if not self._own[node]:
            del self._own[node]
        self._add(node, -1)
        self._keeper.unsupport(node)

    def _add(self, node: Node, change: int) -> None:
        """Add to the pins of `node`, and on upwards as far as a node begins or ends to be pinned."""
        while node.parent is not None:
            node.pins += change
            if node.pins != max(change, 0):
                break
            self.pages += change
            node = node.parent
