"""Tokens proposed to rows before the model has seen them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outthink.engine.acceptance import accept, chances, standing
from outthink.engine.rows import Rows
from outthink.engine.sampler import uniforms

_STAND, _OTHER = np.uint64(0xD1B54A32D192ED03), np.uint64(0xABC98388FB8FAC03)
"""Added to a seed for noise of its own: odd, and not sums of each other, so that streams of one seed are unrelated."""


@dataclass(slots=True)
class Speculation:
    """What drafting has done so far, in tokens.

    steps: how often a row went through the target.  proposed: tokens that went through it beside the rows' last ones.
    accepted: how many of them became text.  read: positions that the draft model computed.
    """

    steps: int = 0
    proposed: int = 0
    accepted: int = 0
    read: int = 0

    @property
    def rate(self) -> float:
        """The share of proposed tokens that became text; 0 where none was proposed."""
        return self.accepted / self.proposed if self.proposed else 0.0


@dataclass(frozen=True, slots=True)
class Ahead:
    """Proposals to rows, one for every place behind a position that the target computes.

    counts: [rows], 1 or more.  tokens: [n], row after row; all but the last of a row go through the target with it.
    chances: [n, vocabulary], what each was drawn from.
    """

    counts: np.ndarray
    tokens: Tensor
    chances: Tensor

    @property
    def first(self) -> np.ndarray:
        """Where each row's places begin [rows]."""
        return np.cumsum(self.counts) - self.counts

    def owners(self) -> np.ndarray:
        """Return whose each place is [n]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def within(self) -> np.ndarray:
        """Return how many places of its row are before each [n]."""
        return np.arange(len(self.tokens)) - np.repeat(self.first, self.counts)

    def part(self, start: int, end: int) -> Ahead:
        """Return the proposals to rows `start` to `end`."""
        edges = np.concatenate([[0], np.cumsum(self.counts)])
        places = slice(int(edges[start]), int(edges[end]))
        return Ahead(self.counts[start:end], self.tokens[places], self.chances[places])

    def trimmed(self, row: int) -> Ahead:
        """Return the proposals with only the first of row number `row`, which the target does not read."""
        counts, kept = self.counts.copy(), (self.owners() != row) | (self.within() == 0)
        counts[row] = 1
        places = torch.from_numpy(np.flatnonzero(kept)).to(self.tokens.device)
        return Ahead(counts, self.tokens[places], self.chances[places])

    def beside(self, other: Ahead) -> Ahead:
        """Return these proposals and, to rows behind theirs, the others."""
        return Ahead(
            np.concatenate([self.counts, other.counts]),
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.chances, other.chances]),
        )

    def decided(
        self, state: Rows, rows: np.ndarray, logits: Tensor, *, finish: Callable[[Ahead, np.ndarray, np.ndarray], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (tokens [n], taken [rows]): what `rows` go on with, by the target's logits [n, vocabulary].

        finish: called with the numbers of the rows of which all proposals but the last stand, before that is looked at.

        Of a row's tokens its first `taken` count; -1 where logits are no numbers.  What a place gets depends on the
        seed, the place and the text before it alone, wherever the places of a step begin and end.
        """
        owners = rows[self.owners()]
        temperature, top_p, min_p = state.knobs[:, owners]
        wanted = chances(logits, temperature=temperature, top_p=top_p, min_p=min_p)
        places = state.place[owners] + self.within()
        noise = np.stack([uniforms(state.seed[owners] + stream, places) for stream in (_STAND, _OTHER)])
        stands = standing(wanted, self.chances, self.tokens, noise[0])
        last = self.first + self.counts - 1
        stands[last] = True
        finish(self, np.flatnonzero(np.logical_and.reduceat(stands, self.first)), rows)
        tokens, taken = accept(wanted, self.chances, self.tokens, counts=self.counts, noise=noise)
        tokens[wanted[:, 0].isnan().numpy(force=True)] = -1
        return tokens, taken
