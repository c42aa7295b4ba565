"""Hydragen: attention that reads what texts share once for all of them.

Paper: Juravsky, Brown, Ehrlich, Fu, Ré, Mirhoseini 2024, "Hydragen: High-Throughput LLM Inference with Shared
  Prefixes", arXiv:2402.05099.
Idea: attention over a prefix and over what follows it can be computed apart and merged exactly, by the log of the sums
  of exponentials. So the queries of all texts that share a prefix read it together, as one product of matrices; what
  memory is read for no longer grows with batch times prefix. Levels of a tree of prefixes are merged one by one.
Entry: policy of the engine, always on: `Engine(..., share=True)`; `Engine(..., share=False)` to measure without it.
  `decode` measures a batch, `reads` has the formula for any tree.
Recipe: engine.levels (which rows read which pages together) x engine.attention and its C kernels (partial attention
  and merging). Rows stand in the order of the tree they form, so that every level is a range of rows; a level is used
  where the pages it saves are worth more than merging its results (`levels.MERGE`).
Spends: per step, layer and key head, with n nodes of P pages at each level l: sum of n_l P_l page reads, where rows for
  themselves take batch times depth of pages. The operations are the same.
Stops: does not apply; texts end as they do without it.
Needs: prefix
Differs: any forest of prefixes, found anew as requests come and go, where the paper has a balanced tree that is set up
  in advance; a level that would not pay is left to its rows; one text decodes as without sharing. The last page of a
  prefix, where it is not full, is each text's own, as they write into it. On the CPU the kernel passes over a page in
  the cache for every four queries, where the paper has one product on tensor cores: what is saved is reading memory,
  and the gain is far below the paper's 32 times.
Claim: attention over random trees equals attention without sharing (1e-12 in float64, 1e-5 in float32); pages read are
  the formula's to the page; on the CPU a shared prefix of 1024 tokens and more decodes faster for batches of 8 and
  more, the ratio grows with batch and with prefix, and a prefix 16 times as long costs a smaller share of the
  throughput than without sharing.
Use it when: many texts go on from one prompt or from the nodes of a search tree, and the prompt is long beside them.
Not when: texts share little, or are few: attention is then a small part of a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.refs import Prefix
from ...core.request import Draft, Sample
from ...engine.engine import Engine
from ...engine.jobs import Finished
from ...engine.levels import Plan
from ...engine.pages import PAGE

NEEDS = frozenset({"prefix"})


@dataclass(frozen=True, slots=True)
class Tree:
    """A node of `pages` shared pages; below it are `children`, and `rows` texts that leave it here for themselves."""

    pages: int
    children: tuple[Tree, ...] = ()
    rows: int = 0

    @property
    def texts(self) -> int:
        """How many texts share this node."""
        return self.rows + sum(child.texts for child in self.children)


def reads(tree: Tree, *, own: int) -> tuple[int, int]:
    """Return the pages read for texts with `own` pages each behind the tree: (every row alone, every node once)."""
    alone = tree.texts * tree.pages + tree.rows * own
    once = tree.pages + tree.rows * own
    for child in tree.children:
        more = reads(child, own=own)
        alone, once = alone + more[0], once + more[1]
    return alone, once


def layout(tree: Tree, *, own: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (table, shared), as `levels.plan` takes them, of the tree's texts in its order."""
    fresh = iter(range(1 << 30))

    def paths(node: Tree, before: tuple[int, ...]) -> list[tuple[tuple[int, ...], int]]:
        here = (*before, *(next(fresh) for _ in range(node.pages)))
        mine = [((*here, *(next(fresh) for _ in range(own))), len(here)) for _ in range(node.rows)]
        return [*mine, *(path for child in node.children for path in paths(child, here))]

    found = paths(tree, ())
    table = np.zeros((len(found), max((len(pages) for pages, _ in found), default=0)), dtype=np.int32)
    for row, (pages, _) in enumerate(found):
        table[row, : len(pages)] = pages
    return table, np.array([count for _, count in found], dtype=np.int64)


class Counted:
    """The operations of an engine's runner, with the pages counted that attention reads; `empty` leaves attention out.

    Without attention the texts mean nothing; what is left is a ceiling for anything that makes attention faster.
    """

    def __init__(self, ops: Any, *, empty: bool = False) -> None:
        self._ops, self._empty = ops, empty
        self.pages = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, *, seen: Tensor, plan: Plan, **more: Any) -> Tensor:
        self.pages += plan.pages_read(-(-seen.numpy(force=True) // PAGE))
        if self._empty:
            return torch.zeros_like(queries)
        return self._ops.attend(queries, keys, values, seen=seen, plan=plan, **more)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding took: tokens drawn behind the first of each text, seconds, and the pages that one layer read.

    texts: what was written, in the order of prompts and seeds.
    """

    tokens: int
    seconds: float
    pages: int
    texts: tuple[str, ...] = field(repr=False, default=())

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def decode(
    engine: Engine, prompts: Sequence[str], *, n: int, tokens: int, empty: bool = False, temperature: float = 0.0,
    clock: Callable[[], float] = time.perf_counter, seed: int = 0,
) -> Decoded:  # fmt: skip
    """Let `n` texts of up to `tokens` tokens go on from each prompt, read before; nobody else is served.

    empty: leave attention out.  What it takes to read the prompts is not in the numbers, nor is the first token's step.
    """
    roots = [Prefix(prompt) for prompt in prompts]
    for i, root in enumerate(roots):
        engine.submit(("prompt", i), Sample(root, "", seed, 1))
    while len(engine):
        engine.step()
    for i in range(n * len(roots)):
        engine.submit(i, Sample(roots[i // n], "", seed + i, tokens, temperature=temperature))
    done = {event.key: event for event in engine.step() if isinstance(event, Finished)}
    inner = engine.runner.ops
    counted = engine.runner.ops = Counted(inner, empty=empty)  # type: ignore[assignment]
    try:
        start = clock()
        while len(engine):
            done |= {event.key: event for event in engine.step() if isinstance(event, Finished)}
        seconds = clock() - start
    finally:
        engine.runner.ops = inner
    ends = [done[i] for i in range(n * len(roots))]
    texts = tuple(end.reply.text for end in ends if isinstance(end.reply, Draft))
    drawn = sum(end.generated - 1 for end in ends)
    return Decoded(drawn, seconds, counted.pages // engine.config.num_hidden_layers, texts)
