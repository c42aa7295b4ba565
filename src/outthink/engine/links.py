"""The tokens of a prefix, piece by piece, worked out once per piece however many requests share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from outthink.core.refs import Prefix
from outthink.engine.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One piece as tokens; `end` counts the tokens from the root to the end of this piece."""

    parent: Link | None
    digest: bytes
    tokens: tuple[int, ...]
    end: int

    @property
    def start(self) -> int:
        return self.end - len(self.tokens)

    def whole(self) -> tuple[int, ...]:
        """Return the tokens from the root to the end of this piece."""
        pieces = [link.tokens for link in self.upwards()]
        return tuple(token for piece in reversed(pieces) for token in piece) if len(pieces) > 1 else pieces[0]

    def upwards(self) -> Iterator[Link]:
        """Yield this link, its parent, and so on to the root."""
        link: Link | None = self
        while link is not None:
            yield link
            link = link.parent


class Links:
    """Prefix to Link; forgotten with the prefix."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._known: WeakKeyDictionary[Prefix, Link] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, prefix: Prefix) -> Link:
        """Return the link of `prefix`, making those of its ancestors that are not known."""
        missing: list[Prefix] = []
        link: Link | None = None
        for node in prefix.ancestors():
            link = self._known.get(node)
            if link is not None:
                break
            missing.append(node)
        for node in reversed(missing):
            tokens = self._vocabulary.tokens(node)
            link = Link(link, node.digest, tokens, (link.end if link else 0) + len(tokens))
            self._known[node] = link
        assert link is not None
        return link
