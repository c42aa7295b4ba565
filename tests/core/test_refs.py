"""Prefixes: chains with running digests."""

from __future__ import annotations

from hypothesis import given

from outthink.core.refs import Prefix, Ref, nearest
from outthink.testing.strategies import prefixes


@given(prefix=prefixes())
def test_a_chain_spells_its_text(prefix: Prefix) -> None:
    chain = prefix.chain()
    assert chain[-1] is prefix and chain == list(prefix.ancestors())[::-1]
    assert "".join(node.piece for node in chain) == prefix.text
    assert prefix.text == chain[0].piece + prefix.written


@given(a=prefixes(), b=prefixes())
def test_equality_is_that_of_the_pieces(a: Prefix, b: Prefix) -> None:
    def pieces(p: Prefix) -> list[object]:
        return [(node.piece, node.tokens, node.vocabulary) for node in p.chain()]

    assert (a == b) == (pieces(a) == pieces(b))
    assert a != b or hash(a) == hash(b)


def test_the_same_text_in_other_pieces_is_another_prefix() -> None:
    one, two = Prefix("ab"), Prefix("a").extend("b")
    assert one.text == two.text and one != two
    assert Prefix("a", tokens=(1,)) != Prefix("a") != Prefix("a", tokens=(1,), vocabulary="x")
    assert Prefix("a") != "a"
    assert Prefix("\udc80").digest  # text that is not valid Unicode has a digest too


def test_the_nearest_held_ancestor_is_found() -> None:
    root = Prefix("root")
    child = root.extend("a")
    leaf = child.extend("b")
    assert nearest(leaf, set()) is None
    assert nearest(leaf, {root.digest}) is root
    assert nearest(leaf, {root.digest, child.digest}) is child
    assert nearest(leaf, {leaf.digest}) is leaf
    assert nearest(child, {leaf.digest}) is None


def test_names_are_short() -> None:
    assert repr(Prefix("x" * 100)).endswith("…'xxxxxxxxxxxxxxxxxxxxxxxx')")
    assert Ref("engine", "run/0", 1) == Ref("engine", "run/0", 1)
