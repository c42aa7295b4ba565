"""Level by level: allocate widths, expand, score, retire what is finished, go on. Beam, DVTS, REBASE, particles."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count
from typing import TypeVar

from ..core.errors import InvalidInput, OutOfBudget
from ..core.seeds import fold
from ..core.verbs import fitting, keep, note
from ..core.verdict import Space, Verifier
from .pace import UNLIMITED, Pace
from .rules import Node, Rule
from .vote import Choose, Leaf

S = TypeVar("S", bound=Hashable)

PILOT = 8
"""The first of several sweeps is at most this wide, or a quarter of what the budget carries: it measures lengths."""


async def search(
    space: Space[S], verifier: Verifier[S], *, rule: Rule, choose: Choose, width: int | None, depth: int = 40,
    pace: Pace | None = None, seen: Sequence[S] = (), seed: int,
) -> S:  # fmt: skip
    """Return the state that `choose` picks from the finished leaves of one sweep, or of as many as the budget pays for.

    Args:
      width: N of the papers, a multiple of the rule's fan. None: what the budget carries to the end, by the mean length
        of the finished paths so far; while there is budget for one more path, another sweep begins with its own seed,
        and the leaves of all sweeps are chosen from. Where nothing limits it: 16, once.
      depth: at most so many levels.
      pace: with it, every level shrinks to the paths that can be carried to the end. Needed for width=None.
      seen: finished states that take part (a greedy draft).

    Budget end: the choice among the finished leaves; without one OutOfBudget, and the best path is kept, unfinished.
    Ties: see `vote` and `widths`.
    """
    if width is not None and (width < 1 or width % rule.fan):
        raise InvalidInput(f"width is {width}; it is a positive multiple of the fan, {rule.fan}, or None")
    if width is None and pace is None:
        raise InvalidInput("width=None asks what the budget carries, and only a pace knows; give one of the two")
    leaves = [Leaf(state, space.answer(state)) for state in seen]
    if pace is None or not seen or await pace.affordable(2 * pace.most(seen)) != 0:  # else no second path is to be had
        scores = await graded(verifier, seen, seed=fold(seed, "seen")) or [None] * len(seen)
        leaves = [Leaf(leaf.state, leaf.answer, score) for leaf, score in zip(leaves, scores, strict=True)]
        for number in count():
            room = await _room(pace, leaves, rule=rule, width=width, number=number)
            came = len(leaves)
            if room:
                leaves += await sweep(
                    space, verifier, rule=rule, choose=choose, width=room, depth=depth, pace=pace, before=leaves,
                    seed=fold(seed, "sweep", number),
                )  # fmt: skip
            if width is not None or len(leaves) == came:
                break
    choice = choose(leaves, seed=fold(seed, "choice"))
    if choice is None:
        raise OutOfBudget("a finished path", "no path came to its end")
    await keep(choice.state, choice.value, complete=choice.answer is not None)
    return choice.state


async def sweep(
    space: Space[S], verifier: Verifier[S], *, rule: Rule, choose: Choose, width: int, depth: int,
    pace: Pace | None = None, before: Sequence[Leaf[S]] = (), seed: int,
) -> list[Leaf[S]]:  # fmt: skip
    """Search once, `width` paths wide; return the finished leaves, also when the budget ends on the way.

    before: leaves found earlier, which the running choice counts in. A node without a score is not grown.
    """
    nodes: Sequence[Node[S]] = [Node(await space.root(fold(seed, "root")), 1.0, done=False)]
    widths: Sequence[int] = [width]
    leaves: list[Leaf[S]] = []
    for level in range(depth):
        born = await _grown(space, nodes, widths, rule=rule, seed=fold(seed, level))
        if not born:
            break
        for node in born:
            if node.done:  # before its score is paid for
                await keep(node.state, complete=space.answer(node.state) is not None)
        scores = await graded(verifier, [node.state for node in born], seed=fold(seed, level, "score"))
        born = [node.scored(score) for node, score in zip(born, scores or [None] * len(born), strict=True)]
        done = [Leaf(node.state, space.answer(node.state), node.score) for node in born if node.done]
        stayed = [node for node, w in zip(nodes, widths, strict=True) if node.done for _ in range(w)]
        leaves += done
        if choice := choose([*before, *leaves], seed=fold(seed, "choice")):
            await keep(choice.state, choice.value, complete=choice.answer is not None)
        if scores is None:
            break
        live = [node for node in born if not node.done and node.score is not None]
        if live:
            best = max(live, key=lambda node: node.worth)
            await keep(best.state, best.score, complete=False)
        room = width - len(leaves) if rule.refund else width
        room = min(room, await _carried(pace, [*before, *leaves], live, room=room))
        nodes = [node for node in (*born, *stayed) if node.score is not None]
        widths = rule.widths(nodes, max(0, room), fold(seed, level, "widths"))
        await note(level=level, width=room, widths=list(widths), finished=len(done))
    if rule.absorb:
        stayed = [node for node, w in zip(nodes, widths, strict=True) if node.done for _ in range(w)]
        leaves = [Leaf(node.state, space.answer(node.state), node.score) for node in stayed] or leaves
    return leaves


async def graded(verifier: Verifier[S], states: Sequence[S], *, seed: int) -> list[float | None] | None:
    """Return the value of each state, None where the verifier had none; None for all when the budget has ended."""
    try:
        verdicts = await verifier(states, seed=seed)
    except OutOfBudget:
        return None
    return [verdict.value if verdict.status == "ok" else None for verdict in verdicts]


async def _grown(
    space: Space[S], nodes: Sequence[Node[S]], widths: Sequence[int], *, rule: Rule, seed: int
) -> list[Node[S]]:
    """Return the children that the budget paid for, without scores; [] where there is nothing to grow."""
    work = [(i, node, w) for i, (node, w) in enumerate(zip(nodes, widths, strict=True)) if w and not node.done]
    try:
        families = await fitting([space.expand(node.state, w, fold(seed, i)) for i, node, w in work])
    except OutOfBudget:
        return []
    out = []
    for (_, parent, _), children in zip(work, families, strict=True):
        for place, state in enumerate(children or ()):
            island = place // rule.fan if parent.island is None else parent.island
            out.append(Node(state, None, space.is_done(state), island))
    return out


async def _room(pace: Pace | None, leaves: Sequence[Leaf[S]], *, rule: Rule, width: int | None, number: int) -> int:
    """Return how wide the next sweep is, 0 for none."""
    payable = await pace.affordable(pace.typical([leaf.state for leaf in leaves])) if pace is not None else None
    if width is not None:
        room = width if payable is None else min(width, payable)
    elif payable is None:
        room = UNLIMITED if number == 0 else 0
    else:
        room = min(payable, max(PILOT, payable // 4)) if number == 0 else payable
    return room - room % rule.fan if room > rule.fan else room


async def _carried(pace: Pace | None, leaves: Sequence[Leaf[S]], live: Sequence[Node[S]], *, room: int) -> int:
    """Return how many of `room` paths can be carried on from here to the end, by the mean length of finished ones."""
    if pace is None or not live:
        return room
    whole = pace.typical([leaf.state for leaf in leaves])
    payable = await pace.affordable(max(whole - pace.typical([node.state for node in live]), whole / 4))
    return room if payable is None else min(room, payable)
