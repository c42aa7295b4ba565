"""Who is served first among the requests that wait: a policy is a sort key, lowest first."""

from __future__ import annotations

from collections.abc import Callable

from outthink.engine.jobs import Job
from outthink.engine.node import Node

Policy = Callable[[Job], tuple[float, ...]]


def first_come(job: Job) -> tuple[float, ...]:
    return (job.number,)


def by_priority(job: Job) -> tuple[float, ...]:
    """The search's own order: what it thinks most of goes first; ties: first come."""
    return (-job.priority, job.number)


def longest_prefix(job: Job) -> tuple[float, ...]:
    """Least to compute first, so that pages that are there are used while they are; ties: first come."""
    missing, node = 0, job.node
    if node.parent is None:
        return (node.end, job.number)  # let go of: what is known of it is looked up when it is its turn
    while node.parent is not None and not node.ready:
        missing, node = missing + len(node.tokens), _parent(node)
    return (missing + len(node.tokens) - node.ready, job.number)


def depth_first(job: Job) -> tuple[float, ...]:
    """Longest text first, so that branches end, and give their memory back, before others begin; ties: first come."""
    return (-job.node.end, job.number)


def _parent(node: Node) -> Node:
    assert node.parent is not None
    return node.parent


POLICIES: dict[str, Policy] = {
    "fcfs": first_come,
    "priority": by_priority,
    "longest_prefix": longest_prefix,
    "depth_first": depth_first,
}
