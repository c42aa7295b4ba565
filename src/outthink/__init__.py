"""Spend exactly this much, get the best answer any published method can give you for it, and see where it went.

    import outthink as ot
    result = ot.solve(prompt, method="rebase", budget="2k tokens")
    result.answer, result.cost, result.stopped

Names are loaded when they are first used: `import outthink` loads neither torch nor anything else that is slow.
"""

from __future__ import annotations

TYPE_CHECKING = (
    False  # type checkers take it for True; importing `typing` would be most of the time of `import outthink`
)
if TYPE_CHECKING:
    from typing import Any

    from outthink.core.budget import Budget, Card
    from outthink.core.cost import Cost
    from outthink.core.errors import (
        BackendError,
        InvalidInput,
        OutOfBudget,
        OutthinkError,
        Unsupported,
    )
    from outthink.core.refs import Prefix, Ref
    from outthink.core.request import Act, Call, Denoise, Draft, Embed, Sample, Score, Scored, Train
    from outthink.core.run import Run
    from outthink.core.runtime import Runtime
    from outthink.core.seeds import fold
    from outthink.core.verbs import bound, cancel, first, fitting, gather, keep, left, note, start, wait, within
    from outthink.core.verdict import Problem, Verdict
    from outthink.experiments.compare import compare
    from outthink.experiments.comparison import Comparison
    from outthink.experiments.result import Result
    from outthink.experiments.setting import Setting, open_setting
    from outthink.experiments.solve import asolve, solve
    from outthink.models.open import open_model
    from outthink.papers.solver import Models, Solver

_HOMES = {
    "core.budget": "Budget Card",
    "core.cost": "Cost",
    "core.errors": "BackendError InvalidInput OutOfBudget OutthinkError Unsupported",
    "core.refs": "Prefix Ref",
    "core.request": "Act Call Denoise Draft Embed Sample Score Scored Train",
    "core.run": "Run",
    "core.runtime": "Runtime",
    "core.seeds": "fold",
    "core.verbs": "bound cancel first fitting gather keep left note start wait within",
    "core.verdict": "Problem Verdict",
    "experiments.compare": "compare",
    "experiments.comparison": "Comparison",
    "experiments.result": "Result",
    "experiments.setting": "Setting open_setting",
    "experiments.solve": "asolve solve",
    "models.open": "open_model",
    "papers.solver": "Models Solver",
}
"""Module -> the public names that live there."""

_MODULES = {name: f"outthink.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = [  # noqa: RUF022  (in the order in which they are met)
    "solve", "asolve", "compare", "Result", "Comparison", "Setting", "open_setting", "open_model",
    "Budget", "Card", "Cost", "Run", "Runtime", "Problem", "Verdict", "Models", "Solver", "Prefix", "Ref",
    "Sample", "Draft", "Score", "Scored", "Embed", "Denoise", "Act", "Call", "Train",
    "gather", "fitting", "first", "within", "keep", "left", "note", "bound", "start", "wait", "cancel", "fold",
    "OutthinkError", "InvalidInput", "Unsupported", "BackendError", "OutOfBudget",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("outthink")
        except PackageNotFoundError:  # used from a source tree that is not installed
            return "0+source"
    home = _MODULES.get(name)
    if home is None:
        raise AttributeError(f"module 'outthink' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
