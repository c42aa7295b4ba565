"""Where the tokens of a run went: by role, and what part of the output is in the answer. Views of a trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from outthink.core.cost import Cost, Tally
from outthink.core.jsonl import Recorded
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Request
from outthink.core.trace import Served

ROLES = {"Sample": "generate", "Score": "verify", "Embed": "embed", "Denoise": "denoise", "Act": "act", "Call": "tool",
         "Train": "train"}  # fmt: skip


def kind_of(request: Request[Any]) -> str:
    """Return "Sample", "Score", ... of a request, also of one that was read from a file."""
    return request.kind if isinstance(request, Recorded) else type(request).__name__


def prefix_of(request: Request[Any]) -> Prefix | None:
    """Return the prefix of a request, None if its kind has none."""
    facts: Any = request.facts.get("prefix") if isinstance(request, Recorded) else getattr(request, "prefix", None)
    return facts if isinstance(facts, Prefix) else None


def role(event: Served, *, policy: str) -> str:
    """Return what an attempt was for: "generate" by the policy, "judge" by another model, "verify", "tool", ...

    At trace level "costs" there is no request to look at; it is then "generate" or "other", by the model.
    """
    if event.request is None:
        return "generate" if set(event.cost.counts) <= {policy} else "other"
    name = ROLES.get(kind_of(event.request), "other")
    return "judge" if name == "generate" and event.request.model != policy else name


def by_role(events: Iterable[Served], *, policy: str) -> dict[str, Cost]:
    """Return the cost of each role; they add up to the cost of the run."""
    tallies: dict[str, Tally] = {}
    for event in events:
        tallies.setdefault(role(event, policy=policy), Tally()).add(event.cost)
    return {name: tally.cost() for name, tally in tallies.items()}


def chosen_output(events: Iterable[Served], *, text: str | None) -> int | None:
    """Return how many output tokens the completion `text` took: its drafts from the prompt to its end, once each.

    0 without a completion. None if no draft of the trace ends in exactly this text (a method may compose its own), or
    if the trace has no replies.
    """
    if text is None:
        return 0
    outputs: dict[bytes, int] = {}
    last: Draft | None = None
    for event in events:
        reply: Any = event.reply
        if isinstance(reply, Draft) and event.status == "done":
            outputs.setdefault(reply.prefix.digest, event.cost.total("output"))
            if last is None and reply.prefix.written == text:
                last = reply
    if last is None:
        return None
    return sum(outputs.get(node.digest, 0) for node in last.prefix.ancestors())
