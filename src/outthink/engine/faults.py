"""What goes wrong inside a step: memory that runs out, and numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from outthink.engine.jobs import Job
from outthink.engine.levels import Plan
from outthink.engine.pages import Pages
from outthink.engine.runner import Batch, Runner


class NotNumbers(FloatingPointError):
    """Logits, log-probabilities or rewards that are no numbers."""


class TooLarge(MemoryError):
    """The system has no memory even for a step with one token of `job` alone."""

    def __init__(self, job: Job, error: Exception) -> None:
        super().__init__(
            f"memory ran out in a step with nothing but this request ({error}); "
            "give the engine less memory for keys and values (kv_bytes), fewer rows, or a larger machine"
        )
        self.job = job


def short_of_memory(error: Exception) -> bool:
    """Return whether `error` says that memory ran out; torch says so in a RuntimeError."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower())


def traced(runner: Runner, pages: Pages, *, table: Sequence[int], tokens: Sequence[int], start: int) -> NotNumbers:
    """Return what to say of tokens at positions from `start` on, behind which there were no numbers.

    table: the pages of their text.  They go through the model once more, writing nothing.
    """
    count, device = len(tokens), runner.device
    batch = Batch(
        torch.tensor(tokens, dtype=torch.int64, device=device),
        torch.arange(start, start + count, dtype=torch.int32, device=device),
        torch.full((count,), -1, dtype=torch.int64, device=device),
        torch.tensor([list(table)], dtype=torch.int32, device=device),
        Plan(np.array([[0, count, 0, 0, len(table)]], dtype=np.int32), np.array([0, 1], dtype=np.int32)),
    )
    return NotNumbers(
        f"what the model says after {start + count} tokens is no number: the first that is none comes out of "
        f"{runner.broken(batch, pages)} (of {runner.config.num_hidden_layers} layers); its weights are damaged, or its "
        f"activations too large for {str(runner.dtype).removeprefix('torch.')}"
    )
