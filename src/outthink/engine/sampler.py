"""From logits to tokens: temperature, truncation, and noise that depends on nothing but the seed and the place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from outthink.engine.native import kernels

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


def draw(
    logits: Tensor, noise: np.ndarray, *, given: np.ndarray, temperature: np.ndarray, top_p: np.ndarray,
    min_p: np.ndarray, logprobs: bool,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Return one token per row [R], -1 where the logits are no numbers, and its log-probability [R] if `logprobs`.

    Args:
      logits: [R, vocabulary], float32.
      noise: [R], float64 in [0, 1): the token is where it falls on the cumulative distribution in order of token id.
      given: [R], a token that is not drawn but forced, or -1.
      temperature: [R]; 0 is greedy, ties go to the lowest token id.
      top_p, min_p: [R]; see `truncated`; 1 and 0 keep everything.

    Log-probabilities are those of temperature 1 without truncation.
    """
    native = kernels() if logits.device.type == "cpu" else None
    tokens = given.astype(np.int64)
    rows = np.flatnonzero((tokens < 0) & ((top_p < 1) | (native is None)))
    if len(rows):
        knobs = (torch.from_numpy(knob[rows]).to(logits.device) for knob in (noise, temperature, top_p, min_p))
        some = logits if len(rows) == len(logits) else logits[torch.from_numpy(rows).to(logits.device)]
        tokens[rows] = _drawn(some, *knobs).numpy(force=True)
    chosen = np.empty(len(logits), dtype=np.float32) if logprobs else None
    if native is not None:
        logits, noise, temperature, min_p = logits.contiguous(), *map(np.ascontiguousarray, (noise, temperature, min_p))
        native.draw(
            logits.data_ptr(), temperature.ctypes.data, min_p.ctypes.data, noise.ctypes.data, tokens.ctypes.data,
            0 if chosen is None else chosen.ctypes.data, *logits.shape,
        )  # fmt: skip
    elif chosen is not None:
        index = torch.from_numpy(tokens).to(logits.device).clamp(min=0)[:, None]
        chosen[:] = logits.log_softmax(-1).gather(1, index)[:, 0].numpy(force=True)
    return tokens, chosen


def logprobs(logits: Tensor, tokens: Tensor) -> np.ndarray:
    """Return the log-probability [n] of each of `tokens` [n] under logits [n, vocabulary], to the bits of a draw."""
    nothing = np.zeros(len(tokens))
    plain = nothing.astype(np.float32)
    given = tokens.numpy(force=True)
    found = draw(logits, nothing, given=given, temperature=plain, top_p=plain + 1, min_p=plain, logprobs=True)[1]
    assert found is not None
    return found


def _drawn(logits: Tensor, noise: Tensor, temperature: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    greedy = temperature == 0
    best = logits.argmax(-1)
    drawn = best
    if not bool(greedy.all()):
        chances = (logits / temperature.masked_fill(greedy, 1.0)[:, None]).softmax(-1)
        edges = truncated(chances, top_p, min_p).cumsum(-1, dtype=torch.float64)
        drawn = torch.searchsorted(edges, (noise * edges[:, -1])[:, None], right=True)[:, 0]
    broken = ~logits.amax(-1).isfinite() | logits.isnan().any(-1)
    return torch.where(greedy, best, drawn).masked_fill(broken, -1)


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
