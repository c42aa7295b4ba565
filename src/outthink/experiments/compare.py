"""Many methods on the same problems at equal budgets, all in one runtime, kept cell by cell as they finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from outthink.core.budget import Budget, Card
from outthink.core.errors import BackendError, InvalidInput
from outthink.experiments.comparison import Comparison
from outthink.experiments.folder import open_folder
from outthink.experiments.plan import Method, distinct, parsed, plan
from outthink.experiments.questions import Questions, load
from outthink.experiments.setting import DEFAULT_MODEL, Setting, open_setting
from outthink.experiments.versions import versions
from outthink.experiments.work import Watch, Work
from outthink.models.function import Judge


def compare(
    task: str | Questions, *, methods: Sequence[Method], budgets: Sequence[str | int | Budget],
    model: str | Setting = DEFAULT_MODEL, verifier: str | Judge | None = None, limit: int | None = None,
    base_url: str | None = None, api_key: str | None = None, cards: Mapping[str, Card] | None = None,
    out: str | Path | None = None, resume: bool = False, command: str = "", watch: Watch | None = None,
    pooled: Mapping[str, str] | None = None, together: int = 256, seed: int = 0, **settings: Any,
) -> Comparison:  # fmt: skip
    """Return the accuracy of every method at every budget on the same problems.

    Each problem is a run of its own with its own budget; all share the batches of one runtime. A problem has the same
    seed whatever the method and budget, so methods are compared on equal luck.

    Args:
      task: a built-in name, a JSONL file of {"id", "prompt", "answer"}, or what `questions.load` gave.
      methods: names, Solvers, or recipes (Models -> Solver). budgets: of one problem.
      out: a folder that keeps every finished cell, rows, plot and report; with `resume`, what it holds is not done
        again. command: what makes it again, for the report.
      watch: called after every cell. together: how many cells are at work at once; it changes nothing but speed.
      pooled: short name of a method -> the model of the setting that replays recorded samples for it (`models.pool`).
      settings: max_tokens, temperature, ... of every sample; `verifier`, `base_url`, `cards` as for `open_setting`.

    Ctrl-C ends early: the result has `interrupted` set and what is done is kept. Cells whose model failed are not
    kept, so `resume` tries them again; BackendError is raised if nothing but failures came.
    """
    limits = parsed(budgets)
    distinct(methods)
    if together < 1:
        raise InvalidInput(f"together is {together}; at least one cell must be at work")
    with ExitStack() as stack:
        questions = load(task, limit=limit) if isinstance(task, str) else task
        if isinstance(model, str):
            opened = open_setting(model, verifier=verifier, base_url=base_url, api_key=api_key, cards=cards, **settings)
            setting = stack.enter_context(opened)
        else:
            setting = model
        planned = plan(questions, setting, methods, limits, pooled=pooled or {}, command=command, seed=seed)
        folder = None
        done = []
        if out is not None:
            folder = stack.enter_context(open_folder(out, planned.header(), resume=resume))
            done = [cell for cell in folder.cells if cell.key in planned.keys]
        comparison = Comparison(
            questions.name, setting.model, tuple(planned.solvers), limits, done, command=command, versions=versions()
        )
        Work(planned, comparison, folder, watch, together).go()
        if folder is not None:
            comparison.write(folder)
    if comparison.failed and not comparison.cells:
        raise BackendError(comparison.failed[0])
    return comparison
