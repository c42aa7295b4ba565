"""Names for what lives inside a backend, and the prefix whose content is known."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Ref:
    """The name of a value that a backend holds (hidden states, a latent, a session); never its contents."""

    backend: str
    path: str
    index: int = 0


class Prefix:
    """The Ref whose content is known: an immutable chain of pieces of text with a running digest.

    A child shares its parent's memory, equality and hash are O(1), and every backend finds its own nearest held
    ancestor. `tokens` are the exact ids of the last piece where a model produced them (`vocabulary` names whose), so
    that a model continues what it wrote and not a second tokenisation of it.
    """

    __slots__ = ("__weakref__", "digest", "parent", "piece", "tokens", "vocabulary")

    def __init__(
        self, piece: str, *, parent: Prefix | None = None, tokens: tuple[int, ...] | None = None, vocabulary: str = ""
    ) -> None:
        self.piece, self.parent, self.tokens, self.vocabulary = piece, parent, tokens, vocabulary
        body = blake2b(parent.digest if parent is not None else b"", digest_size=16)
        body.update(repr((piece, tokens, vocabulary)).encode("utf-8", "surrogatepass"))
        self.digest: bytes = body.digest()

    def extend(self, piece: str, *, tokens: tuple[int, ...] | None = None, vocabulary: str = "") -> Prefix:
        """Return the child that continues this prefix by `piece`."""
        return Prefix(piece, parent=self, tokens=tokens, vocabulary=vocabulary)

    def chain(self) -> list[Prefix]:
        """Return the pieces from the root to this one."""
        out = list(self.ancestors())
        out.reverse()
        return out

    def ancestors(self) -> Iterator[Prefix]:
        """Yield this prefix, its parent, and so on to the root."""
        node: Prefix | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def text(self) -> str:
        """The whole text from the root on."""
        return "".join(node.piece for node in self.chain())

    @property
    def written(self) -> str:
        """The text below the root: what was added to the prompt."""
        return "".join(node.piece for node in self.chain()[1:])

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Prefix) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Prefix({self.digest.hex()[:8]}, …{self.piece[-24:]!r})"


def hold(prefix: Prefix, held: set[bytes]) -> None:
    """Add `prefix` to `held`, and its ancestors with it: who holds a text holds its beginnings."""
    for node in prefix.ancestors():
        if node.digest in held:
            return
        held.add(node.digest)


def nearest(prefix: Prefix, held: Collection[bytes]) -> Prefix | None:
    """Return the longest ancestor of `prefix` (itself included) whose digest is in `held`, or None."""
    for node in prefix.ancestors():
        if node.digest in held:
            return node
    return None
