"""The rule of speculative decoding: which proposed tokens stand, and what is drawn in place of one that does not.

A token x proposed from q stands with chance min(1, p(x) / q(x)); otherwise one is drawn from what p has more than q,
(p - q)+ brought to sum 1.  Whatever q is, the outcome is distributed as p: q(x) min(1, p(x)/q(x)) = min(p(x), q(x)),
and the rest of p, sum (p - q)+ in all, is what was turned down.

Source: Leviathan, Kalman, Matias 2023, "Fast inference from transformers via speculative decoding", section 2.3 and
appendix A.1; Chen et al. 2023, theorem 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from outthink.engine.sampler import truncated


def chances(logits: Tensor, *, temperature: np.ndarray, top_p: np.ndarray, min_p: np.ndarray) -> Tensor:
    """Return the distributions [n, vocabulary] that tokens are drawn from, each with sum 1.

    All of temperature, top_p and min_p [n] is in them; at temperature 0 all is on the likeliest token (ties: the lowest
    id).  A row of logits that are no numbers gives numbers that are none.
    """
    knobs = (torch.from_numpy(np.ascontiguousarray(knob)).to(logits.device) for knob in (temperature, top_p, min_p))
    heat, nucleus, least = knobs
    greedy = heat == 0
    if bool(greedy.all()):
        return _certain(logits)
    shares = truncated((logits / heat.masked_fill(greedy, 1.0)[:, None]).softmax(-1), nucleus, least)
    shares = shares / shares.sum(-1, keepdim=True)
    return torch.where(greedy[:, None], _certain(logits), shares) if bool(greedy.any()) else shares


def _certain(logits: Tensor) -> Tensor:
    sure = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return sure.masked_fill(~logits.amax(-1, keepdim=True).isfinite(), float("nan"))


def pick(weights: Tensor, noise: np.ndarray) -> Tensor:
    """Return the token [n] at which noise [n] in [0, 1) falls on the cumulative weights [n, vocabulary].

    Weights need not sum to 1; a token of weight 0 is never picked, unless its row has nothing else.
    """
    edges = weights.cumsum(-1, dtype=torch.float64)
    whole = edges[:, -1]
    at = torch.from_numpy(np.ascontiguousarray(noise)).to(weights.device) * whole
    at = torch.minimum(at, torch.nextafter(whole, torch.zeros_like(whole)))  # or rounding picks what weighs nothing
    return torch.searchsorted(edges, at[:, None], right=True)[:, 0].clamp_(max=weights.shape[-1] - 1)


def standing(p: Tensor, q: Tensor, proposed: Tensor, noise: np.ndarray) -> np.ndarray:
    """Return which of the `proposed` tokens [n], drawn from q [n, vocabulary], stand where p is wanted."""
    wanted, drawn = (table.gather(-1, proposed[:, None])[:, 0].double() for table in (p, q))
    return (torch.from_numpy(noise).to(p.device) * drawn < wanted).numpy(force=True)


def accept(
    p: Tensor, q: Tensor, proposed: Tensor, *, counts: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (tokens [n], taken [texts]): what each text goes on with, of which only its first `taken` count.

    Args:
      p, q: [n, vocabulary], what is wanted and what each proposed token was drawn from; the places of a text follow
        each other, a place's distributions being those behind the proposed tokens before it.
      proposed: [n]; counts [texts], 1 or more: places of each text, n in all.
      noise: [2, n], uniform in [0, 1) and independent of what was drawn with: whether a token stands, what is instead.

    A text takes its proposed tokens up to the first that does not stand, and another in place of that one.  Where
    rounding leaves nothing of (p - q)+, it is drawn from p.
    """
    stands = standing(p, q, proposed, noise[0])
    first = np.cumsum(counts) - counts
    within = np.arange(len(stands)) - np.repeat(first, counts)
    taken = np.minimum(np.minimum.reduceat(np.where(stands, len(stands), within), first) + 1, counts)
    tokens = proposed.numpy(force=True).copy()
    last = first + taken - 1
    last = last[~stands[last]]
    if len(last):
        mine = p[last]
        rest = (mine - q[last]).clamp_(min=0.0)
        rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, mine)
        tokens[last] = pick(rest, noise[1][last]).numpy(force=True)
    return tokens, taken
