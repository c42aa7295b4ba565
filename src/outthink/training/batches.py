"""Batches of whole documents, one per row and of like length, so that nothing is packed and nothing leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor


class Document(NamedTuple):
    """Token ids and, for each, a target: what `batched` puts in rows; nan is "no target here"."""

    tokens: list[int]
    targets: list[float]


def batched(draw: Callable[[], list[Document]], *, tokens: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield without end (tokens [B, T] int64, targets [B, T] float32), padded with 0 and nan.

    `draw` gives a fresh pool of documents; a batch has at most `tokens` entries, padding included, unless one
    document is longer.  Batches of a pool come in random order, so that lengths do not drift.
    """
    rng = Random(f"batches {seed}")
    while True:
        pool = sorted(draw(), key=lambda document: len(document.tokens))
        rows: list[Document] = []
        groups = []
        for document in pool:
            if rows and (len(rows) + 1) * len(document.tokens) > tokens:
                groups.append(rows)
                rows = []
            rows.append(document)
        groups.append(rows)
        rng.shuffle(groups)
        for group in groups:
            yield (
                padded([d.tokens for d in group], 0, torch.int64),
                padded([d.targets for d in group], float("nan"), torch.float32),
            )


def padded(rows: list[list], fill: float, dtype: torch.dtype) -> Tensor:
    """Return `rows` as one [B, longest] tensor, filled up with `fill` on the right; no rows is an error."""
    if not rows:
        raise ValueError("there are no rows to batch; draw at least one document")
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [fill] * (longest - len(row)) for row in rows], dtype=dtype)
