"""How many pages the requests of one owner need together, each shared one counted once, and the most they ever did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from outthink.engine.node import Node


@dataclass(slots=True)
class _Account:
    nodes: Counter[Node] = field(default_factory=Counter)
    own: int = 0
    live: int = 0
    peak: int = 0


class Holdings:
    """Kept as requests come and go, never by looking at all of them. Owners without live requests are forgotten."""

    def __init__(self) -> None:
        self._accounts: dict[Hashable, _Account] = {}

    def enter(self, owner: Hashable, path: Sequence[Node]) -> None:
        """A request of `owner` reads `path` from now on."""
        account = self._accounts.setdefault(owner, _Account())
        account.live += 1
        account.nodes.update(path)
        self._note(account)

    def grow(self, owner: Hashable, pages: int) -> None:
        """A request of `owner` has got `pages` of its own."""
        account = self._accounts[owner]
        account.own += pages
        self._note(account)

    def leave(self, owner: Hashable, path: Sequence[Node], own: int) -> int:
        """A request that read `path` and had `own` pages ends; return the most pages its owner has needed so far."""
        account = self._accounts[owner]
        account.live -= 1
        account.own -= own
        for node in path:
            account.nodes[node] -= 1
            if not account.nodes[node]:
                del account.nodes[node]
        if not account.live:
            del self._accounts[owner]
        return account.peak

    def _note(self, account: _Account) -> None:
        account.peak = max(account.peak, len(account.nodes) + account.own)
