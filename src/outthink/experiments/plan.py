"""What a comparison is going to do, checked before anything is spent or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outthink.core.budget import Budget
from outthink.core.errors import InvalidInput
from outthink.experiments.cells import Key, grid
from outthink.experiments.price import lacking, one_sample, quote
from outthink.experiments.questions import Question, Questions
from outthink.experiments.setting import Recipe, Setting
from outthink.experiments.versions import versions
from outthink.papers import load
from outthink.papers.solver import Solver

Method = str | Solver | Recipe


@dataclass(slots=True)
class Plan:
    """Every problem times every solver times every budget; `keys` are the cells, `by_id` the questions.

    pooled: short name of a method -> the model of the setting from which it replays recorded samples.
    """

    questions: Questions
    setting: Setting
    solvers: dict[str, Solver]
    budgets: dict[str, Budget]
    pooled: Mapping[str, str]
    seed: int
    command: str
    by_id: dict[str, Question] = field(init=False)
    keys: frozenset[Key] = field(init=False)

    def __post_init__(self) -> None:
        self.by_id = {question.problem.id: question for question in self.questions.items}
        self.keys = frozenset(grid(self.by_id, list(self.solvers), list(self.budgets.values())))

    def header(self) -> dict[str, Any]:
        """Return what must be equal for results to be of one comparison, and what may grow."""
        return {
            "task": self.questions.name, "task_digest": self.questions.digest, "problems": len(self.questions.items),
            "model": self.setting.model, "verifier": self.setting.verifier, "seed": self.seed,
            "settings": self.setting.described, "methods": list(self.solvers), "budgets": list(self.budgets),
            "pooled": sorted(self.pooled), "versions": versions(), "command": self.command,
        }  # fmt: skip


def plan(
    questions: Questions, setting: Setting, methods: Sequence[Method], budgets: Sequence[Budget], *,
    pooled: Mapping[str, str], command: str, seed: int,
) -> Plan:  # fmt: skip
    """Return the plan. Raises InvalidInput or Unsupported if a method or a budget cannot work with these models."""
    solvers = {
        name: setting.solver(method, answer_of=questions.answer_of, policy=pooled.get(name))
        for name, method in zip(distinct(methods), methods, strict=True)
    }
    for budget in budgets:
        _affordable(questions, setting, budget)
    named = {str(budget): budget for budget in budgets}
    return Plan(questions, setting, solvers, named, pooled, seed, command)


def parsed(budgets: Sequence[str | int | Budget]) -> tuple[Budget, ...]:
    """Return the budgets. Raises InvalidInput if there are none, or if two are the same."""
    if not budgets:
        raise InvalidInput("no budgets; give at least one, for example --budgets 256,1k,4k")
    out = tuple(Budget.parse(budget) for budget in budgets)
    _once([str(budget) for budget in out], "budget")
    return out


def distinct(methods: Sequence[Method]) -> list[str]:
    """Return the short names of the methods. Raises InvalidInput for an unknown one, a repeated one, or none at all."""
    if not methods:
        raise InvalidInput("no methods; give at least one, for example --methods greedy,majority")
    names = [_name(method) for method in methods]
    _once(names, "method")
    return names


def _name(method: Method) -> str:
    if isinstance(method, str):
        return load(method).name.split("/")[-1]
    return method.name if isinstance(method, Solver) else getattr(method, "__name__", "method")


def _once(names: Sequence[str], what: str) -> None:
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise InvalidInput(f"{what} {again!r} was given twice; name every {what} once")


def _affordable(questions: Questions, setting: Setting, budget: Budget) -> None:
    """Raise if `budget` cannot pay for one sample of any problem: then its rows could only say 0 of n."""
    problems = [question.problem for question in questions.items]
    if all(lacking(setting, problem, budget) for problem in problems):
        cheapest = min(problems, key=lambda problem: one_sample(setting, problem, tokens=1).tokens)
        needs = quote(setting, cheapest, lacking(setting, cheapest, budget))
        raise InvalidInput(
            f"the budget of {budget} cannot pay for one sample of {setting.model} on any problem. Of {cheapest.id}, "
            f"the cheapest: {needs}"
        )
