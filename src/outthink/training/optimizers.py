"""Muon for the matrices of the layers, AdamW for the rest, under one schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Rates:
    """Peak learning rates: `matrices` for Muon, `rest` (embeddings, norms) and `head` (a reward head) for AdamW."""

    matrices: float = 0.02
    rest: float = 4e-3
    head: float = 3e-3


DEFAULT = Rates()


class Optimizers:
    """The optimizers of one model; `step(progress)` clips, steps and clears the gradients."""

    def __init__(self, model: nn.Module, rates: Rates, *, warmup: int, hold: float) -> None:
        """`warmup` counts steps; the rate is full until the share `hold` of training, then falls linearly to 2 %."""
        named = dict(model.named_parameters())
        matrices = [p for name, p in named.items() if ".layers." in name and p.dim() == 2]
        head = [p for name, p in named.items() if name.startswith("score.")]
        rest = [
            p
            for name, p in named.items()
            if not name.startswith("score.") and not (".layers." in name and p.dim() == 2)
        ]
        self._all = [
            torch.optim.Muon(
                matrices, lr=rates.matrices, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original", ns_steps=5
            ),
            torch.optim.AdamW(rest, lr=rates.rest, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        if head:
            self._all.append(torch.optim.AdamW(head, lr=rates.head, betas=(0.9, 0.98), weight_decay=0.0))
        self._peaks = [optimizer.param_groups[0]["lr"] for optimizer in self._all]
        self._parameters, self._warmup, self._hold, self._steps = list(named.values()), warmup, hold, 0

    def step(self, progress: float) -> None:
        """Take one step at `progress` in 0..1 of the training."""
        factor = schedule(self._steps, progress, warmup=self._warmup, hold=self._hold)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer, peak in zip(self._all, self._peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()
        self._steps += 1


def schedule(step: int, progress: float, *, warmup: int, hold: float) -> float:
    """Return the factor on the peak rate: linear from 0 over `warmup` steps, flat, then linear to 0.02 after `hold`."""
    rising = min(1.0, (step + 1) / warmup)
    falling = 1.0 if progress < hold else max(0.02, (1 - progress) / (1 - hold))
    return rising * falling
