"""The search tree of a run: which text was continued by which, what each piece cost, and how it was scored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from outthink.core.refs import Prefix
from outthink.core.request import Draft, Scored
from outthink.core.trace import Served
from outthink.experiments.breakdown import prefix_of


@dataclass(slots=True)
class Node:
    """A piece of text. `tokens` of output; `score` by a verifier, the latest; `chosen` if it is in the answer.

    times: how often this very piece was drawn; its tokens count every time.
    """

    digest: bytes
    text: str
    tokens: int = 0
    times: int = 0
    score: float | None = None
    chosen: bool = False
    finish: str = ""
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    @property
    def best(self) -> float:
        """The highest score in this branch; -1 without any."""
        return max((node.score for node in self.walk() if node.score is not None), default=-1.0)


def search_tree(events: Iterable[Served], *, text: str | None = None) -> list[Node]:
    """Return the roots (one per prompt that was asked), children in the order in which they were drawn.

    text: the chosen completion; the pieces that it is made of are marked. Needs a trace with requests and replies:
    of one without, [].
    """
    nodes: dict[bytes, Node] = {}
    roots: list[Node] = []
    chosen: Prefix | None = None

    def at(prefix: Prefix) -> Node:
        fresh: list[Prefix] = []
        for ancestor in prefix.ancestors():
            if ancestor.digest in nodes:
                break
            fresh.append(ancestor)
        for ancestor in reversed(fresh):
            node = nodes[ancestor.digest] = Node(ancestor.digest, ancestor.piece)
            (nodes[ancestor.parent.digest].children if ancestor.parent is not None else roots).append(node)
        return nodes[prefix.digest]

    for event in events:
        asked = prefix_of(event.request) if event.request is not None and event.status == "done" else None
        if asked is None:
            continue
        at(asked)
        if isinstance(event.reply, Draft):
            node = at(event.reply.prefix)
            node.tokens += event.cost.total("output")
            node.times += 1
            node.finish = event.reply.finish
            if chosen is None and text is not None and event.reply.prefix.written == text:
                chosen = event.reply.prefix
        elif isinstance(event.reply, Scored):
            at(asked).score = event.reply.value
    for ancestor in chosen.ancestors() if chosen is not None else ():
        nodes[ancestor.digest].chosen = True
    return roots


def shown(node: Node, limit: int) -> tuple[list[Node], int]:
    """Return the children to show, at most `limit`, and how many are left out: chosen first, then by best score."""
    if len(node.children) <= limit:
        return node.children, 0
    order = sorted(range(len(node.children)), key=lambda i: (not node.children[i].chosen, -node.children[i].best, i))
    keep = sorted(order[:limit])
    return [node.children[i] for i in keep], len(node.children) - limit
