"""What one sample of a model costs at most, before anything is spent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from outthink.core.budget import Budget, Limit, Meter, weights
from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.run import Run
from outthink.core.verdict import Problem
from outthink.experiments.setting import Setting


@dataclass(slots=True)
class Quote:
    """A ticket that is only ever priced."""

    held: Collection[bytes] = frozenset()
    bound: Cost = field(default_factory=Cost)
    path: str = "quote"
    run: Any = None
    watched: bool = False


def one_sample(setting: Setting, problem: Problem, *, tokens: int | None = None) -> Cost:
    """Return the bound of one sample of `problem`, of at most `tokens` tokens (None: as long as the setting allows)."""
    models = setting.models()
    most = models.max_tokens if tokens is None else tokens
    request = Sample(Prefix(models.asked(problem.prompt)), models.policy, 0, max_tokens=most)
    return setting.backends[setting.model].bound(Quote(), request)


def lacking(setting: Setting, problem: Problem, budget: Budget) -> list[Limit]:
    """Return for each limit of `budget` that cannot pay for the shortest sample what it would have to be; [] if it can.

    The shortest is the prompt and one token: a sample is cut to what is left of the budget.
    """
    bound = one_sample(setting, problem, tokens=1)
    needs = [
        Limit(limit.kind, Meter(limit.kind, weights(limit.kind, setting.cards)).amount(bound))
        for limit in budget.limits
    ]
    return [need for need, limit in zip(needs, budget.limits, strict=True) if need.cap > limit.cap]


def shortfall(run: Run, setting: Setting, problem: Problem, budget: Budget) -> str | None:
    """Return the error of a run that could not pay for a single sample, None if that is not why it has no answer."""
    if run.stopped != "budget" or run.cost.total("calls"):
        return None
    needs = lacking(setting, problem, budget)
    if not needs:
        return None
    return f"the budget of {budget} cannot pay for one sample of {setting.model}: {quote(setting, problem, needs)}"


def quote(setting: Setting, problem: Problem, needs: list[Limit]) -> str:
    """Return the sentences about what `problem` needs at least, and for a whole sample."""
    bound = one_sample(setting, problem)
    least = ", ".join(map(str, needs))
    return (
        f"this prompt needs at least {least}, and {bound.tokens} tokens for a whole sample "
        f"({bound.total('prompt')} of prompt, up to {bound.total('output')} of output). Nothing was spent; "
        "raise the budget"
    )
