"""The rules of the forest, one by one. Random sequences of them are in test_forest_fuzz.py."""

import numpy as np
import pytest
import torch

from outthink.core.errors import InvalidInput
from outthink.engine.forest import Forest
from outthink.engine.node import Node
from outthink.engine.pages import PAGE, OutOfPages, Pages


def forest(count: int = 64, **options) -> Forest:
    return Forest(Pages(1, kv_heads=1, head_dim=1, count=count, dtype=torch.float32), **options)


def fill(trees: Forest, tokens, *, upto: int | None = None) -> list[Node]:
    """Compute `tokens`, each as its own number; the path is held once."""
    path = trees.path(tokens)
    trees.hold(path[-1])
    for node in path[:upto]:
        trees.reserve(node)
        for at in range(node.ready, len(node.tokens)):
            trees.pages.keys[:, node.page, :, :, at] = node.tokens[at]
            trees.pages.values[:, node.page, :, at] = node.tokens[at]
        node.advance(len(node.tokens) - node.ready)
    return path


def named(trees: Forest, tokens) -> Node:
    node = fill(trees, tokens)[-1]
    trees.name(node)
    trees.release(node)
    return node


def read(trees: Forest, pages: list[int], length: int) -> list[float]:
    keys = trees.pages.keys[0, pages, 0, 0].flatten()[:length]
    assert torch.equal(keys, trees.pages.values[0, pages, 0, :, 0].flatten()[:length])
    return keys.tolist()


def test_a_path_has_a_node_for_each_page_and_the_last_may_be_partial():
    path = forest().path(range(37))
    assert [node.tokens for node in path] == [tuple(range(16)), tuple(range(16, 32)), tuple(range(32, 37))]
    assert [(node.start, node.end, node.full, node.page) for node in path] == [
        (0, 16, True, -1),
        (16, 32, True, -1),
        (32, 37, False, -1),
    ]
    assert path[2].parent is path[1] and path[1].parent is path[0]


def test_no_tokens_have_no_nodes():
    trees = forest()
    assert trees.path([]) == []
    assert len(trees) == 0


def test_equal_beginnings_are_the_same_nodes():
    trees = forest()
    a, b = trees.path(range(40)), trees.path([*range(32), 7])
    assert a[:2] == b[:2]
    assert a[2] is not b[2]
    assert trees.path(range(40)) == a


def test_what_was_only_looked_at_is_gone_after_the_step():
    trees = forest()
    trees.path(range(40))
    kept = trees.path([1, 2, 3])
    trees.hold(kept[-1])
    trees.tick()
    assert len(trees) == 1
    assert trees.path([1, 2, 3]) == kept


def test_a_node_that_was_let_go_of_is_refused():
    trees = forest()
    node = trees.path([1])[0]
    trees.tick()
    for act in (trees.hold, trees.name, trees.reserve, trees.pin):
        with pytest.raises(ValueError, match=r"was let go of; ask path\(\) again"):
            act(node)


def test_what_was_paid_before_is_not_paid_again():
    node = forest().path(range(10))[0]
    node.owed = 3
    assert (node.advance(2), node.owed, node.advance(4), node.owed, node.ready) == (0, 1, 3, 0, 6)


def test_undoing_what_was_not_done_is_refused():
    trees = forest()
    node = trees.path([1])[0]
    for undo, what in ((trees.release, "held"), (trees.unname, "named"), (trees.unpin, "pinned")):
        with pytest.raises(ValueError, match=f"is not {what}"):
            undo(node)


def test_reserving_copies_the_beginning_that_a_sibling_has_computed():
    trees = forest()
    first = fill(trees, [1, 2, 3, 4, 5])[-1]
    first.ends = {3: torch.ones(1), 4: torch.zeros(1)}
    first.note("reward", np.arange(5, dtype=np.float32))
    second = trees.path([1, 2, 3, 9])[-1]
    second.owed = 4
    trees.reserve(second)
    assert (second.ready, second.complete, second.owed) == (3, False, 1)
    assert read(trees, [second.page], 3) == [1, 2, 3]
    assert list(second.ends) == [3]
    assert second.values["reward"][:3].tolist() == [0, 1, 2] and np.isnan(second.values["reward"][3])


def test_a_sibling_gives_only_what_it_has_computed():
    trees = forest()
    first = fill(trees, [1, 2, 3, 4, 5])[-1]
    first.ready = 2
    second = trees.path([1, 2, 3])[-1]
    trees.reserve(second)
    assert second.ready == 2


def test_a_partial_page_is_found_among_many_siblings_by_whoever_extends_it():
    trees = forest()
    fill(trees, [1, 2, 3])
    for other in range(30):
        fill(trees, [100 + other])
    node = trees.path([1, 2, 3, 4])[-1]
    trees.reserve(node)
    assert node.ready == 3


def test_the_last_release_gives_the_memory_back_in_the_same_step():
    trees = forest()
    path = fill(trees, range(40))
    trees.tick()
    trees.hold(path[1])
    trees.release(path[-1])
    assert trees.usage().pages == 2
    trees.release(path[1])
    assert (trees.usage().pages, len(trees)) == (0, 0)


def test_a_name_keeps_memory_until_its_last_bearer_is_gone():
    trees = forest()
    node = named(trees, range(20))
    trees.name(node)
    trees.tick()
    trees.unname(node)
    assert trees.usage().pages == 2
    trees.unname(node)
    assert (trees.usage().pages, len(trees)) == (0, 0)


def test_a_long_path_that_ends_does_not_recurse():
    trees = forest(2048)
    path = fill(trees, range(16 * 2000))
    trees.tick()
    trees.release(path[-1])
    assert len(trees) == 0


def test_loose_contents_stay_up_to_their_number_the_least_recently_used_going_first():
    trees = forest(loose=3)
    a, b = named(trees, [1] * 20), named(trees, [2] * 20)
    trees.tick()
    trees.unname(a)
    trees.unname(b)
    assert trees.usage().pages == 3
    assert [node.ready for node in trees.path([1] * 20)] == [16, 0]  # its tail was the oldest leaf
    assert all(node.complete for node in trees.path([2] * 20))


def test_loose_contents_can_be_used_again():
    trees = forest(loose=8)
    node = named(trees, range(20))
    trees.tick()
    trees.unname(node)
    trees.tick()
    assert trees.path(range(20))[-1] is node
    trees.name(node)
    trees.tick()
    assert trees.usage().pages == 2


def test_loose_contents_are_evicted_before_named_ones_of_less_priority():
    trees = forest(2, loose=2)
    keep, loose = named(trees, [1]), named(trees, [2])
    trees.prioritise(keep, -5.0)
    trees.tick()
    trees.path([2])
    trees.tick()
    trees.unname(loose)
    fill(trees, [3])
    assert keep.complete
    assert loose.parent is None


def test_named_contents_go_by_priority_and_then_by_last_use():
    trees = forest(4)
    nodes = [named(trees, [i]) for i in range(4)]
    for node, priority in zip(nodes, (0.5, 0.1, 0.1, 0.9), strict=True):
        trees.prioritise(node, priority)
    trees.tick()
    trees.path([1])
    trees.tick()
    gone = []
    for i in range(4):
        fill(trees, [10 + i])
        gone += [n.tokens[0] for n in nodes if not n.ready and n.tokens[0] not in gone]
    assert gone == [2, 1, 0, 3]


def test_a_priority_that_falls_later_counts():
    trees = forest(3)
    a, b, c = (named(trees, [i]) for i in range(3))
    for node, priority in ((a, 2.0), (b, 3.0), (c, 1.0)):
        trees.prioritise(node, priority)
    trees.tick()
    fill(trees, [10])
    assert not c.complete
    trees.prioritise(b, 0.5)
    fill(trees, [11])
    assert a.complete and not b.complete


def test_what_is_held_without_being_looked_up_is_safe_too():
    trees = forest(2)
    node = named(trees, range(20))
    trees.tick()
    trees.hold(node)
    with pytest.raises(OutOfPages):
        fill(trees, [99])
    assert node.complete and node.parent.complete


def test_a_page_is_not_made_at_the_cost_of_those_before_it():
    trees = forest(2)
    node = named(trees, range(20))
    trees.tick()
    trees.release(fill(trees, [99])[-1])
    trees.tick()
    fill(trees, [98])
    trees.tick()
    with pytest.raises(OutOfPages):
        trees.reserve(node)
    assert node.parent.complete


def test_loose_contents_that_were_looked_at_go_leaves_first():
    trees = forest(4, loose=8)
    leaves = [named(trees, range(17)), named(trees, [*range(16), 5])]
    above = leaves[0].parent
    trees.tick()
    for leaf in leaves:
        trees.unname(leaf)
    for leaf in leaves:
        trees.path(above.tokens + leaf.tokens)
    trees.tick()
    gone = []
    for i in range(4):
        fill(trees, [100 + i])
        gone.append([node.parent is None for node in (*leaves, above)])
    assert gone == [[False, False, False], [True, False, False], [True, True, False], [True, True, True]]


def test_a_node_that_was_looked_at_outlives_what_was_behind_it():
    trees = forest(1, loose=1)
    path = trees.path(range(20))
    trees.hold(path[-1])
    trees.reserve(path[-1])  # not before its parent, as one should
    trees.tick()
    trees.release(path[-1])
    looked_at = trees.path(range(16))[-1]
    fill(trees, [99])
    assert path[-1].parent is None
    trees.hold(looked_at)


def test_a_named_node_that_is_evicted_keeps_its_name():
    trees = forest(2)
    node = named(trees, range(20))
    node.owed, node.ends, node.values = 0, {3: torch.ones(1)}, {"reward": np.zeros(4, dtype=np.float32)}
    trees.tick()
    fill(trees, [99])
    assert (node.page, node.ready, node.names, node.owed, node.ends, node.values) == (-1, 0, 1, 0, {}, {})
    assert node.parent.ready == 16  # leaves first
    assert trees.path(range(20))[-1] is node
    trees.tick()
    fill(trees, [98])
    assert node.parent.page == -1
    trees.unname(node)
    assert len(trees) == 2


def test_nothing_held_or_touched_in_this_step_is_evicted():
    trees = forest(2)
    held = fill(trees, [1])[-1]
    touched = named(trees, [2])
    fresh = trees.path([3])[-1]
    with pytest.raises(OutOfPages, match=r"1 pages are needed, 0 of 2 are free.*kv_bytes"):
        trees.reserve(fresh)
    assert held.complete and touched.complete and fresh.page == -1
    trees.tick()
    fill(trees, [3])
    assert held.complete and not touched.complete


def test_whoever_waits_without_memory_protects_what_is_computed_before_it():
    trees = forest(2)
    path = fill(trees, range(20), upto=1)
    other = named(trees, [5])
    trees.tick()
    fill(trees, [6])
    assert path[0].complete and not other.complete
    trees.tick()
    with pytest.raises(OutOfPages):
        fill(trees, [7])


def test_a_pin_keeps_a_path_without_a_name_until_it_is_undone():
    trees = forest(5, pinned=0.4)
    path = fill(trees, range(20))
    trees.pin(path[-1])
    trees.pin(path[-1])
    trees.release(path[-1])
    trees.tick()
    assert trees.pinned == 2
    for i in range(3):
        fill(trees, [50 + i])
    trees.tick()
    with pytest.raises(OutOfPages):
        fill(trees, [60])
    trees.unpin(path[-1])
    assert path[-1].complete
    trees.unpin(path[-1])
    assert (trees.pinned, trees.usage().pages) == (0, 3)


def test_pins_above_the_cap_are_refused_and_change_nothing():
    trees = forest(10, pinned=0.3)
    a, b = fill(trees, range(40)), fill(trees, [*range(32), 1])
    trees.pin(a[-1])
    with pytest.raises(InvalidInput, match=r"pinning 33 tokens takes 1 pages more; 3 of the 3 pages .* unpin"):
        trees.pin(b[-1])
    trees.pin(a[0])  # pinned already: takes nothing
    trees.unpin(a[-1])
    assert trees.pinned == 1
    trees.unpin(a[0])
    trees.pin(b[-1])
    assert trees.pinned == 3


def test_a_fork_copies_nothing_until_something_is_written_behind_a_partial_page():
    trees = forest()
    path = fill(trees, range(20))
    branch = trees.fork(path)
    assert (branch.pages, branch.shared, branch.start) == ([node.page for node in path], 2, 20)
    assert trees.usage().pages == 2
    trees.grow(branch, 21)
    assert branch.pages[0] == path[0].page and branch.pages[1] != path[1].page
    assert (branch.shared, branch.length, trees.usage().pages) == (1, 21, 3)
    assert read(trees, branch.pages, 20) == list(range(20))


def test_a_fork_at_a_page_boundary_shares_all_and_grows_by_whole_pages():
    trees = forest()
    branch = trees.fork(fill(trees, range(32)))
    trees.grow(branch, 33)
    assert (branch.shared, len(branch.pages)) == (2, 3)
    trees.grow(branch, 48)
    assert trees.usage().pages == 3
    trees.grow(branch, 40)
    assert branch.length == 48


def test_a_branch_from_the_root_is_allowed():
    trees = forest()
    branch = trees.fork([])
    trees.grow(branch, 3)
    path = trees.publish(branch, [1, 2, 3], ready=3)
    assert path == trees.path([1, 2, 3]) and path[0].complete


def test_an_uncomputed_or_cut_path_cannot_be_forked():
    trees = forest()
    path = fill(trees, range(40), upto=2)
    with pytest.raises(InvalidInput, match="1 of 3 pages to fork from are not computed"):
        trees.fork(path)
    with pytest.raises(InvalidInput, match="from the root on"):
        trees.fork(path[1:2])
    assert path[-1].refs == 1 and path[1].refs == 0


def test_growing_beyond_memory_changes_nothing():
    trees = forest(4)
    branch = trees.fork(fill(trees, range(20)))
    with pytest.raises(OutOfPages, match="3 pages are needed, 2 of 4 are free"):
        trees.grow(branch, 60)
    assert (branch.length, branch.shared, len(branch.pages), trees.usage().pages) == (20, 2, 2, 2)
    trees.grow(branch, 48)


def test_growing_evicts_what_is_worth_less():
    trees = forest(4)
    branch = trees.fork(fill(trees, range(20)))
    old = named(trees, [7] * 17)
    trees.tick()
    trees.grow(branch, 40)
    assert not old.complete and not old.parent.complete


def test_rollback_gives_pages_back_and_ends_at_the_fork():
    trees = forest()
    path = fill(trees, range(20))
    branch = trees.fork(path)
    trees.grow(branch, 70)
    trees.rollback(branch, 33)
    assert (len(branch.pages), trees.usage().pages) == (3, 4)
    trees.rollback(branch, 20)
    assert (branch.pages, branch.shared) == ([node.page for node in path], 2)
    assert trees.usage().logical_bytes == trees.usage().physical_bytes
    for wrong in (19, 21):
        with pytest.raises(InvalidInput, match=f"cannot go back to {wrong}; choose a length from 20 to 20"):
            trees.rollback(branch, wrong)
    trees.grow(branch, 21)
    assert read(trees, branch.pages, 20) == list(range(20))


def write(trees: Forest, branch, tokens) -> None:
    trees.grow(branch, branch.length + len(tokens))
    for at, token in enumerate(tokens, branch.length - len(tokens)):
        trees.pages.keys[:, branch.pages[at // PAGE], :, :, at % PAGE] = token
        trees.pages.values[:, branch.pages[at // PAGE], :, at % PAGE] = token


def test_what_a_branch_wrote_becomes_nodes_and_its_uncomputed_tokens_are_owed():
    trees = forest()
    branch = trees.fork(fill(trees, range(20)))
    write(trees, branch, range(20, 39))
    path = trees.publish(branch, range(20, 40), ready=39)
    trees.name(path[-1])
    assert path == trees.path(range(40))
    assert [(node.ready, node.owed) for node in path] == [(16, 0), (16, 0), (7, 1)]
    assert read(trees, [node.page for node in path], 39) == list(range(39))
    assert not branch.live and trees.path(range(20))[-1].refs == 1


def test_a_page_without_anything_computed_is_given_back():
    trees = forest()
    branch = trees.fork(fill(trees, range(16)))
    trees.grow(branch, 17)
    path = trees.publish(branch, [16], ready=16)
    assert (path[-1].page, path[-1].ready, path[-1].owed, trees.usage().pages) == (-1, 0, 1, 1)


def test_tokens_without_pages_of_their_own_are_owed():
    trees = forest()
    path = fill(trees, range(20))
    node = trees.publish(trees.fork(path), [20, 21], ready=20)[-1]
    assert (node.page, node.ready, node.owed, path[-1].ready) == (-1, 0, 6, 4)
    trees.reserve(node)
    assert (node.ready, node.owed) == (4, 2)


def test_what_is_published_and_never_named_leaves_nothing_behind():
    trees = forest()
    path = fill(trees, range(32))
    branch = trees.fork(path)
    trees.release(path[-1])
    write(trees, branch, [32, 33])
    trees.tick()
    trees.publish(branch, [32, 33], ready=34)
    assert trees.usage().pages == 3
    trees.tick()
    assert (trees.usage().pages, len(trees)) == (0, 0)


def test_publishing_nothing_returns_the_path_of_the_fork():
    trees = forest()
    path = fill(trees, range(20))
    branch = trees.fork(path)
    trees.grow(branch, 50)
    assert trees.publish(branch, [], ready=20) == path
    assert trees.usage().pages == 2


def test_of_two_equal_branches_one_keeps_its_pages():
    trees = forest()
    path = fill(trees, range(20))
    one, two = trees.fork(path), trees.fork(path)
    for branch in (one, two):
        write(trees, branch, range(20, 50))
    kept = trees.publish(one, range(20, 50), ready=50)
    trees.name(kept[-1])
    pages = [node.page for node in kept]
    assert trees.publish(two, range(20, 50), ready=50) == kept
    assert [node.page for node in kept] == pages
    assert trees.usage().pages == 2 + 3  # the partial page of the fork is still held


def test_a_branch_that_has_computed_more_takes_over_the_node():
    trees = forest()
    path = fill(trees, range(16))
    node = trees.path(range(20))[-1]
    trees.hold(node)
    trees.reserve(node)
    node.ready = 1
    branch = trees.fork(path)
    write(trees, branch, range(16, 20))
    mine = branch.pages[-1]
    trees.publish(branch, range(16, 20), ready=20)
    assert (node.page, node.ready, trees.usage().pages) == (mine, 4, 2)


@pytest.mark.parametrize("ready", [15, 21, 19])
def test_what_is_ready_lies_between_the_fork_and_what_was_written(ready):
    trees = forest()
    branch = trees.fork(fill(trees, range(16)))
    trees.grow(branch, 18)
    with pytest.raises(InvalidInput, match=f"ready={ready} of 20 tokens"):
        trees.publish(branch, range(4), ready=ready)
    assert branch.live


def test_an_ended_branch_is_refused():
    trees = forest()
    branch = trees.fork(fill(trees, range(20)))
    trees.grow(branch, 40)
    trees.release_branch(branch)
    assert trees.usage().pages == 2
    for act in (
        lambda: trees.grow(branch, 50),
        lambda: trees.rollback(branch, 20),
        lambda: trees.publish(branch, [], ready=20),
        lambda: trees.release_branch(branch),
    ):
        with pytest.raises(ValueError, match="the branch has ended"):
            act()


def test_bytes_are_counted_with_and_without_sharing():
    trees = forest()
    path = fill(trees, range(20))
    branches = [trees.fork(path) for _ in range(3)]
    trees.grow(branches[0], 33)
    usage = trees.usage()
    size = trees.pages.page_bytes
    assert (usage.pages, usage.peak, usage.nodes) == (4, 4, 2)
    assert (usage.physical_bytes, usage.logical_bytes) == (4 * size, (3 + 2 + 2) * size)


def test_clear_leaves_what_is_in_use_and_the_names():
    trees = forest(loose=4)
    branch = trees.fork(fill(trees, range(20)))
    node, loose = named(trees, [5] * 20), named(trees, [6])
    trees.unname(loose)
    trees.clear()
    assert trees.usage().pages == 2 and len(trees) == 4
    assert read(trees, branch.pages, 20) == list(range(20))
    assert node.names == 1 and not node.complete


def test_the_eviction_queue_does_not_grow_with_what_was_never_evicted():
    trees = forest(8)
    for i in range(1000):
        trees.tick()
        trees.unname(named(trees, [i]))
    assert len(trees._keeper._queue) <= 100
