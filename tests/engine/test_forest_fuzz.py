"""Random life of a forest against a cache that stores every text on its own.

A token's keys and values are a number made of all tokens up to it, so a page in the wrong place, or overwritten, shows.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
import torch

from outthink.core.errors import InvalidInput
from outthink.engine.forest import Forest
from outthink.engine.node import Branch, Node
from outthink.engine.pages import PAGE, OutOfPages, Pages


def numbers(tokens) -> list[float]:
    """The contents that each token must have."""
    out, state = [], 7
    for token in tokens:
        state = (state * 31 + token + 1) % 65521
        out.append(float(state))
    return out


@dataclass(eq=False)
class Request:
    tokens: tuple[int, ...]
    path: list[Node]
    ready: list[int]


@dataclass(eq=False)
class Writing:
    """A branch, with the copy of everything that a naive cache would keep for it."""

    branch: Branch
    tokens: list[int]
    stored: list[float]


@dataclass
class World:
    seed: int
    pages: int
    loose: int
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.draw = Random(self.seed)
        pool = Pages(2, kv_heads=1, head_dim=2, count=self.pages, dtype=torch.float32)
        self.forest = Forest(pool, pinned=0.3, loose=self.loose)
        self.keys, self.values = pool.keys.numpy(), pool.values.numpy()
        self.requests: list[Request] = []
        self.branches: list[Writing] = []
        self.names: list[tuple[tuple[int, ...], Node]] = []
        self.pins: list[Request] = []

    # What can happen

    def text(self) -> tuple[int, ...]:
        """Often the beginning of a known text, often with something behind it."""
        known = [tokens for tokens, _ in self.names] + [request.tokens for request in self.requests]
        start = self.draw.choice(known) if known and self.draw.random() < 0.8 else ()
        if self.draw.random() < 0.3:
            start = start[: self.draw.randint(0, len(start))]
        return start + tuple(self.draw.randint(0, 1) for _ in range(self.draw.choice((0, 1, 3, 16, 20))))

    def ask(self) -> None:
        tokens = self.text()[:90]
        path = self.forest.path(tokens)
        assert tuple(token for node in path for token in node.tokens) == tokens
        if path and self.draw.random() < 0.9:
            self.forest.hold(path[-1])
            self.requests.append(Request(tokens, path, [node.ready for node in path]))

    def return_to(self) -> None:
        """Hold a named node without looking it up."""
        if self.names:
            tokens, node = self.draw.choice(self.names)
            path = node.path()
            self.forest.hold(node)
            self.requests.append(Request(tokens, path, [node.ready for node in path]))

    def compute(self) -> None:
        if not self.requests:
            return
        request = self.draw.choice(self.requests)
        left = self.draw.choice((3, 30, 100, 100))
        expected = numbers(request.tokens)
        for node in request.path:
            try:
                self.forest.reserve(node)
            except OutOfPages:
                self.refuse("reserve")
                break
            upto = min(len(node.tokens), node.ready + left)
            left -= upto - node.ready
            for at in range(node.ready, upto):
                self.write(node.page, at, expected[node.start + at])
            node.advance(upto - node.ready)
            if not node.complete:
                break
        request.ready = [node.ready for node in request.path]

    def let_go(self) -> None:
        if self.requests:
            self.forest.release(self.requests.pop(self.draw.randrange(len(self.requests))).path[-1])

    def fork(self) -> None:
        if self.draw.random() < 0.1:
            self.branches.append(Writing(self.forest.fork([]), [], []))
        elif self.requests:
            request = self.draw.choice(self.requests)
            if all(node.complete for node in request.path):
                for _ in range(self.draw.choice((1, 1, 3))):
                    branch = self.forest.fork(request.path)
                    self.branches.append(Writing(branch, list(request.tokens), numbers(request.tokens)))
            else:
                with pytest.raises(InvalidInput):
                    self.forest.fork(request.path)

    def append(self) -> None:
        if not self.branches:
            return
        writing = self.draw.choice(self.branches)
        branch = writing.branch
        new = [self.draw.randint(0, 1) for _ in range(self.draw.choice((1, 2, 7, 20)))]
        before = (list(branch.pages), branch.shared, branch.length)
        try:
            self.forest.grow(branch, len(writing.tokens) + len(new))
        except OutOfPages:
            self.refuse("grow")
            assert (branch.pages, branch.shared, branch.length) == before
            return
        writing.tokens += new
        expected = numbers(writing.tokens)
        for place in range(len(writing.stored), len(expected) - self.draw.randint(0, 1)):
            self.write(branch.pages[place // PAGE], place % PAGE, expected[place])
            writing.stored.append(expected[place])

    def roll_back(self) -> None:
        if self.branches:
            writing = self.draw.choice(self.branches)
            length = self.draw.randint(writing.branch.start, writing.branch.length)
            self.forest.rollback(writing.branch, length)
            del writing.tokens[length:], writing.stored[length:]

    def publish(self) -> None:
        if self.branches:
            writing = self.branches.pop(self.draw.randrange(len(self.branches)))
            start = writing.branch.start
            tokens = writing.tokens[: self.draw.choice((None, None, max(start, len(writing.tokens) - 2)))]
            ready = min(len(tokens), len(writing.stored))
            tokens = tokens + [self.draw.randint(0, 1)] * self.draw.choice((0, 0, 1))  # drawn, and no page for it
            path = self.forest.publish(writing.branch, tokens[start:], ready=ready)
            assert [token for node in path for token in node.tokens] == tokens
            if path and self.draw.random() < 0.8:
                self.forest.name(path[-1])
                self.names.append((tuple(tokens), path[-1]))

    def abort(self) -> None:
        if self.branches:
            self.forest.release_branch(self.branches.pop(self.draw.randrange(len(self.branches))).branch)

    def name(self) -> None:
        if self.requests:
            request = self.draw.choice(self.requests)
            self.forest.name(request.path[-1])
            self.names.append((request.tokens, request.path[-1]))

    def unname(self) -> None:
        if self.names:
            self.forest.unname(self.names.pop(self.draw.randrange(len(self.names)))[1])

    def pin(self) -> None:
        if self.requests:
            request = self.draw.choice(self.requests)
            try:
                self.forest.pin(request.path[-1])
            except InvalidInput:
                self.refused["pin"] += 1
            else:
                self.pins.append(Request(request.tokens, request.path, [node.ready for node in request.path]))

    def unpin(self) -> None:
        if self.pins:
            self.forest.unpin(self.pins.pop(self.draw.randrange(len(self.pins))).path[-1])

    def prioritise(self) -> None:
        if self.names:
            self.forest.prioritise(self.draw.choice(self.names)[1], self.draw.random())

    def tick(self) -> None:
        self.forest.tick()

    def clear(self) -> None:
        if self.draw.random() < 0.05:
            self.forest.clear()

    def write(self, page: int, at: int, number: float) -> None:
        self.keys[:, page, :, :, at] = number
        self.values[:, page, :, at] = number

    # What must hold

    def refuse(self, what: str) -> None:
        """Memory may only be refused when nothing could have been evicted."""
        self.refused[what] += 1
        nodes = [self.forest._keeper.root]
        for node in nodes:
            nodes += node.children.values()
        assert not [n for n in nodes if n.page >= 0 and n.anchors == 1 and n.used != self.forest.clock]

    def audit(self) -> None:
        forest, keeper = self.forest, self.forest._keeper
        refs = Counter(request.path[-1] for request in self.requests)
        refs.update(writing.branch.path[-1] for writing in self.branches if writing.branch.path)
        names = Counter(node for _, node in self.names)
        pins = Counter(pin.path[-1] for pin in self.pins)
        nodes = [keeper.root]
        for node in nodes:
            nodes += node.children.values()
        numbered: dict[Node, tuple[int, ...]] = {keeper.root: (7,)}
        owners: list[int] = []
        for node in nodes[1:]:
            parent = node.parent
            assert parent.children[node.tokens] is node and node.start == parent.end and parent.full | (parent.end == 0)
            assert 0 < len(node.tokens) <= PAGE and (node.full or not node.children)
            assert (node.refs, node.names) == (refs.pop(node, 0), names.pop(node, 0))
            assert 0 <= node.ready <= len(node.tokens) and (node.page >= 0 or not node.ready)
            assert 0 <= node.owed and (not node.complete or not node.owed)
            state, expected = numbered[parent][-1], []
            for token in node.tokens:
                state = (state * 31 + token + 1) % 65521
                expected.append(state)
            numbered[node] = tuple(expected)
            if node.page >= 0:
                owners.append(node.page)
                self.check(node.page, expected[: node.ready])
        assert not refs and not names  # every node that somebody uses is in the tree
        for node in reversed(nodes[1:]):
            children = node.children.values()
            assert node.pins == pins[node] + sum(child.pins > 0 for child in children)
            assert node.wants == node.refs + node.names + pins[node] + sum(child.wants > 0 for child in children)
            own = node.refs + pins[node] + (node.page >= 0)
            assert node.anchors == own + sum(child.anchors > 0 for child in children)
            if not node.wants:
                assert (node in keeper._fresh) if node.used == keeper.clock else (node in keeper._loose)
            elif node.page >= 0 and node.anchors == 1:
                assert node.queued >= 0 or node in keeper._aside
        assert len(keeper._loose) <= self.loose and not any(node.wants for node in keeper._loose)
        assert forest.pinned == sum(node.pins > 0 for node in nodes) <= int(0.3 * self.pages)
        for request in self.requests + self.pins:
            assert all(node.ready >= least for node, least in zip(request.path, request.ready, strict=True))
        for writing in self.branches:
            branch = writing.branch
            assert len(branch.pages) == -(-branch.length // PAGE)
            assert branch.pages[: branch.shared] == [node.page for node in branch.path[: branch.shared]]
            owners += branch.pages[branch.shared :]
            for number, page in enumerate(branch.pages):
                self.check(page, writing.stored[number * PAGE : (number + 1) * PAGE])
        assert len(owners) == len(set(owners)) == forest.pages.used
        usage, size = forest.usage(), forest.pages.page_bytes
        assert (usage.pages, usage.nodes) == (len(owners), len(nodes) - 1)
        assert usage.physical_bytes == len(owners) * size
        assert usage.logical_bytes == sum(-(-w.branch.length // PAGE) for w in self.branches) * size
        assert usage.pages <= usage.peak <= self.pages

    def check(self, page: int, expected) -> None:
        count = len(expected)
        assert (self.keys[:, page, :, :, :count] == np.asarray(expected)).all()
        assert (self.values[:, page, :, :count] == np.asarray(expected)[:, None]).all()

    def end(self) -> None:
        """Let everything go."""
        while self.branches:
            self.abort()
        while self.requests:
            self.let_go()
        while self.names:
            self.unname()
        while self.pins:
            self.unpin()


ACTS = {
    World.ask: 6,
    World.return_to: 1,
    World.compute: 10,
    World.let_go: 5,
    World.fork: 5,
    World.append: 10,
    World.roll_back: 2,
    World.publish: 4,
    World.abort: 1,
    World.name: 3,
    World.unname: 4,
    World.pin: 1,
    World.unpin: 1,
    World.prioritise: 2,
    World.tick: 6,
    World.clear: 1,
}


@pytest.mark.parametrize(
    ("seed", "pages", "loose"), [(0, 6, 0), (1, 12, 0), (2, 12, 5), (3, 25, 4), (4, 25, 25), (5, 60, 10), (6, 200, 0)]
)
def test_a_forest_leaks_nothing_and_agrees_with_a_cache_that_shares_nothing(seed, pages, loose):
    world = World(seed, pages, loose)
    acts = world.draw.choices(list(ACTS), weights=list(ACTS.values()), k=1500)
    for act in acts:
        act(world)
        world.audit()
    if pages <= 25:  # else the pool was never short, and eviction not tried
        assert world.refused["reserve"] and world.refused["grow"] and world.refused["pin"]
    world.end()
    world.audit()
    world.forest.clear()
    assert (world.forest.pages.used, len(world.forest), world.forest.usage().logical_bytes) == (0, 0, 0)
