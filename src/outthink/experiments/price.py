"""What one sample of a model costs at most, before anything is spent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from outthink.core.budget import Budget, Limit, Meter, weights
from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.core.run import Run
from outthink.core.verdict import Problem
from outthink.experiments.setting import Setting


@dataclass(frozen=True, slots=True)
class Quote:
    """A ticket that is only ever priced."""

    held: Collection[bytes] = frozenset()
    bound: Cost = Cost()
    path: str = "quote"


def one_sample(setting: Setting, problem: Problem) -> Cost:
    """Return the bound of one sample of `problem` by the setting's policy."""
    models = setting.models()
    request = Sample(Prefix(problem.prompt), models.policy, 0, max_tokens=models.max_tokens)
    return setting.backends[setting.model].bound(Quote(), request)


def lacking(setting: Setting, problem: Problem, budget: Budget) -> list[Limit]:
    """Return for each limit of `budget` that cannot pay for one sample what it would have to be; [] if it can pay."""
    bound = one_sample(setting, problem)
    needs = [Limit(limit.kind, Meter(limit.kind, weights(limit.kind, setting.cards)).amount(bound)) for limit in budget.limits]
    return [need for need, limit in zip(needs, budget.limits, strict=True) if need.cap > limit.cap]


def shortfall(run: Run, setting: Setting, problem: Problem, budget: Budget) -> str | None:
    """Return the error of a run that could not pay for a single sample, None if that is not why it has no answer."""
    if run.stopped != "budget" or run.cost.total("calls"):
        return None
    needs = lacking(setting, problem, budget)
    if not needs:
        return None
    bound = one_sample(setting, problem)
    needed = ", ".join(f"{need.cap} {need.kind}" if need.kind != "dollars" else str(need) for need in needs)
    return (f"the budget of {budget} cannot pay for one sample of {setting.model}: this prompt needs {needed} "
            f"({bound.total('prompt')} prompt tokens and up to {bound.total('output')} of output). Nothing was spent; "
            f"raise the budget, or lower max_tokens")  # fmt: skip
