"""Branches: texts that are being written behind computed paths. Only what they write takes memory of its own."""

from __future__ import annotations

from collections.abc import Sequence

from outthink.core.errors import InvalidInput
from outthink.engine.eviction import Keeper
from outthink.engine.node import Branch, Node, check_known
from outthink.engine.pages import PAGE


class Branches:
    """Begins, grows and ends branches. `logical`: pages that the live ones would take if nothing were shared."""

    def __init__(self, keeper: Keeper) -> None:
        self.logical = 0
        self._keeper, self._pages = keeper, keeper.pages

    def fork(self, path: Sequence[Node]) -> Branch:
        """Return a branch that continues `path`, whose nodes must all be computed; [] begins at the root.

        Copies no page, and holds the last node while the branch lives.
        """
        table = [node.page for node in path if node.ready == len(node.tokens)]
        if len(table) < len(path):
            raise InvalidInput(f"{len(path) - len(table)} of {len(path)} pages to fork from are not computed; do first")
        start = 0
        if path:
            start = path[-1].end
            if -(-start // PAGE) != len(path):
                raise InvalidInput(f"a path of {len(path)} nodes cannot end at token {start}; give it from the root on")
            check_known(path[-1])
            path[-1].refs += 1
            self._keeper.support(path[-1])
        self.logical += len(table)
        return Branch(tuple(path), table, shared=len(table), start=start, length=start)

    def grow(self, branch: Branch, length: int) -> None:
        """Make sure that `branch` has pages for `length` tokens. Raises OutOfPages with nothing of it changed."""
        _living(branch)
        if length <= branch.length:
            return
        full = _full(branch)
        new = -(-length // PAGE) - len(branch.pages)
        self._keeper.room(new + branch.shared - full)
        if branch.shared > full:
            page = self._pages.take()
            self._pages.copy(branch.pages[full], page, count=branch.start % PAGE)
            branch.pages[full], branch.shared = page, full
        branch.pages += [self._pages.take() for _ in range(new)]
        branch.length = length
        self.logical += new

    def rollback(self, branch: Branch, length: int) -> None:
        """Take a branch back to `length` tokens, and give back the pages behind them."""
        _living(branch)
        if not branch.start <= length <= branch.length:
            raise InvalidInput(
                f"a branch of {branch.length} tokens that forked at {branch.start} cannot go back to {length}; "
                f"choose a length from {branch.start} to {branch.length}, or fork from an earlier node"
            )
        keep = _full(branch) if length == branch.start else -(-length // PAGE)
        self._give(branch, keep)
        if keep < len(branch.path) and not branch.pages[keep:]:
            branch.pages.append(branch.path[-1].page)
            branch.shared, self.logical = keep + 1, self.logical + 1
        branch.length = length

    def publish(self, branch: Branch, tokens: Sequence[int], *, ready: int) -> list[Node]:
        """End a branch and make what it wrote part of the forest; return the path to its end.

        tokens: all tokens behind the fork.  ready: tokens from the root on that have keys and values, at least
          `branch.start`; nodes behind them exist without memory.  Tokens not computed are owed: who drew them paid.
        Where an equal node has as much computed, the branch's page is given back; where the branch has more, its page
        takes the place of the node's.  The path is touched: name or hold its last node before the next `tick`.
        """
        _living(branch)
        total = branch.start + len(tokens)
        if not branch.start <= ready <= min(total, branch.length):
            raise InvalidInput(
                f"ready={ready} of {total} tokens of a branch that forked at {branch.start} and has pages for "
                f"{branch.length}; it must be at least the first and at most the smaller of the others"
            )
        full, keeper, table = _full(branch), self._keeper, branch.pages
        nodes = list(branch.path if not tokens else branch.path[:full])
        node = nodes[-1] if nodes else keeper.root
        keeper.touch(node)
        partial = branch.path[full].tokens if full < len(branch.path) else ()
        rest = (*partial, *tokens) if tokens else ()
        for number, at in enumerate(range(0, len(rest), PAGE), full):
            piece = rest[at : at + PAGE]
            node = node.children.get(piece) or keeper.make(node, piece)
            node.used = keeper.clock
            nodes.append(node)
            count = min(len(piece), ready - number * PAGE)
            if branch.shared <= number < len(table) and count > node.ready:
                table[number] = keeper.equip(node, table[number], ready=count)
            node.owed = max(node.owed, len(piece) - node.ready)
        keeper.touch(node)
        self.release(branch)
        return nodes

    def release(self, branch: Branch) -> None:
        """(Forest.release_branch) End a branch and give its private pages back."""
        _living(branch)
        branch.live = False
        self._give(branch, branch.shared)
        self.logical -= branch.shared
        branch.pages.clear()
        if branch.path:
            branch.path[-1].refs -= 1
            self._keeper.unsupport(branch.path[-1])

    def _give(self, branch: Branch, keep: int) -> None:
        """Give back the private pages of a branch from number `keep` on."""
        keep = max(keep, branch.shared)
        for page in branch.pages[keep:]:
            if page >= 0:  # else a node took it over
                self._pages.give(page)
        self.logical -= len(branch.pages) - keep
        del branch.pages[keep:]


def _full(branch: Branch) -> int:
    """Return how many pages at the beginning of a branch belong to full nodes."""
    return branch.start // PAGE


def _living(branch: Branch) -> None:
    if not branch.live:
        raise ValueError("the branch has ended; fork a new one from the path that publish() returned")
