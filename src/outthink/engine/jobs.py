"""A request on its way through the engine, and what comes back of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from torch import Tensor

from outthink.core.request import Draft, Sample, Score, Scored
from outthink.engine.links import Link
from outthink.engine.node import Node
from outthink.engine.watch import Watch

Processor = Callable[[tuple[int, ...], Tensor], Tensor]
"""(tokens drawn so far, logits [vocabulary]) -> the logits to draw from; -infinity forbids a token. Pure."""


@dataclass(slots=True, eq=False)
class Job:
    """A request in the engine.

    number: how many were submitted before it.  priority: what the search thinks of it; higher goes first.
    node: where its known tokens end, which is held while `held`.  rest: what is known behind its prefix: tokens it drew
      before it had to give up its row.
    owner: whose it is, for `pages`: the most that its owner's requests needed together so far.
    limit: most tokens it can draw.  allowed: most it may draw before it pauses, asked when it gets there.
    watched: whether anybody wants to see its text on the way; said: how many of its tokens they have seen.
    processor: changes its logits.  top: how many of the likeliest tokens are told for each token (`tops`).
    computed: positions that were computed for it and that nobody had paid for before.
    generated: tokens drawn or forced, the end token and those a monitor took back included.
    row: its row while it decodes, else -1.
    closing: why it has ended (finish, stop), while its last token goes through the model for its hidden state.
    """

    key: Hashable
    request: Sample | Score
    link: Link
    node: Node
    number: int
    limit: int = 0
    priority: float = 0.0
    owner: Hashable = None
    allowed: Callable[[], int] | None = None
    watched: Callable[[], bool] | None = None
    processor: Processor | None = None
    top: int = 0
    held: bool = False
    rest: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    said: int = 0
    computed: int = 0
    generated: int = 0
    pages: int = 0
    row: int = -1
    watch: Watch | None = None
    hidden: list[Tensor] = field(default_factory=list)
    tops: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    closing: tuple[str, str | None] | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request.

    reply: None if it was cancelled, or if it failed with `error` (its monitor raised, its logits were no numbers).
    prompt: tokens of its prefix; computed: how many of them had to be computed for it.
    generated: tokens drawn or forced, whatever became of them.
    pages: the most pages of keys and values that the requests of its owner needed together so far.
    top: ids and log-probabilities [tokens of the draft, k] of the likeliest tokens at each place, if asked for.
    rest: what a watched request has written since its last piece.
    hidden: [tokens of the draft, hidden_size], the final hidden state after each, if asked for.
    """

    key: Hashable
    reply: Draft | Scored | None
    prompt: int
    computed: int
    generated: int = 0
    pages: int = 0
    hidden: Tensor | None = None
    error: Exception | None = None
    top: tuple[Tensor, Tensor] | None = None
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that a watched request has written since the last piece; the pieces add up to the text of its draft."""

    key: Hashable
    text: str


@dataclass(frozen=True, slots=True)
class Waits:
    """A request has drawn all it was allowed to, and does nothing until `Engine.resume`."""

    key: Hashable


Event = Piece | Waits | Finished
