"""A request on its way through the engine, and how it ends."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor

from outthink.core.request import Draft, Sample, Score, Scored
from outthink.engine.links import Link
from outthink.engine.watch import Watch


@dataclass(slots=True, eq=False)
class Job:
    """A request in the engine.

    computed: positions of its prefix that were computed for it and that nobody had paid for before.
    generated: tokens drawn or forced, the end token and those a monitor took back included.
    row: its row while it decodes, else -1.
    closing: why it has ended (finish, stop), while its last token goes through the model for its hidden state.
    """

    key: Hashable
    request: Sample | Score
    link: Link
    path: list[Link] = field(default_factory=list)
    limit: int = 0
    computed: int = 0
    generated: int = 0
    row: int = -1
    watch: Watch | None = None
    hidden: list[Tensor] = field(default_factory=list)
    closing: tuple[str, str | None] | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request.

    reply: None if it was cancelled, or if its monitor raised `error`.
    prompt: tokens of its prefix; computed: how many of them had to be computed for it.
    generated: tokens drawn or forced, whatever became of them.
    hidden: [tokens of the draft, hidden_size], the final hidden state after each, if asked for.
    """

    key: Hashable
    reply: Draft | Scored | None
    prompt: int
    computed: int
    generated: int = 0
    hidden: Tensor | None = None
    error: Exception | None = None
