"""From logits to tokens: temperature, truncation, and noise that depends on nothing but the seed and the place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_STEP, _MIX1, _MIX2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_TOP = 64  # candidates looked at before a whole vocabulary is sorted; a full sort takes as long as a small model


def uniforms(seeds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return numbers in [0, 1) [n], each a function of its seed (uint64) and its place (how many came before) alone.

    Counter-based: splitmix64's finalizer over seed and counter, twice, so that neither neighbours in seed nor in place
    are correlated.  Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    mixed = _mixed(_mixed(seeds.astype(np.uint64) + _STEP) + (places.astype(np.uint64) + np.uint64(1)) * _STEP)
    return (mixed >> np.uint64(12)) * 2.0**-52


def _mixed(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX2
    return bits ^ (bits >> np.uint64(31))


def draw(logits: Tensor, noise: Tensor, *, temperature: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Return one token per row [R].

    Args:
      logits: [R, vocabulary], float32.
      noise: [R], float64 in [0, 1): the token is where it falls on the cumulative distribution in order of token id.
      temperature: [R]; 0 is greedy, ties go to the lowest token id.
      top_p, min_p: [R]; see `truncated`; 1 and 0 keep everything.
    """
    greedy = temperature == 0
    best = logits.argmax(-1)
    if bool(greedy.all()):
        return best
    chances = truncated((logits / temperature.masked_fill(greedy, 1.0)[:, None]).softmax(-1), top_p, min_p)
    edges = chances.cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(edges, (noise * edges[:, -1])[:, None], right=True)[:, 0]
    return torch.where(greedy, best, drawn)


def truncated(chances: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Return `chances` [R, vocabulary] with unlikely tokens at zero; rows are not normalised again.

    top_p keeps the most likely tokens up to and including the one that brings their sum to top_p (ties: lowest token
    id first); min_p keeps those at least min_p times as likely as the likeliest.  Both together keep what both keep,
    and the likeliest is always kept.
    """
    if bool((min_p > 0).any()):
        chances = chances.masked_fill(chances < min_p[:, None] * chances.amax(-1, keepdim=True), 0.0)
    cut = (top_p < 1).nonzero()[:, 0]
    if len(cut):
        kept = _nucleus(chances[cut], top_p[cut, None])
        chances = chances.index_put((cut,), chances[cut] * kept)
    return chances


def _nucleus(chances: Tensor, top_p: Tensor, most: int = _TOP) -> Tensor:
    """Return which tokens make up the first `top_p` [R, 1] of `chances` [R, vocabulary], looking at `most` of them."""
    ranked = chances.topk(min(most, chances.shape[1])).values
    before = ranked.cumsum(-1, dtype=torch.float64) - ranked
    count = (before < top_p).sum(-1, keepdim=True).clamp_(min=1)
    if most < chances.shape[1] and bool((count == most).any()):
        return _nucleus(chances, top_p, chances.shape[1])
    edge = ranked.gather(-1, count - 1)
    above, level = chances > edge, chances == edge
    return above | (level & (level.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
