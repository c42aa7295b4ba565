"""Many methods on the same problems at equal budgets, all in one runtime, kept cell by cell as they finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outthink.core.budget import Budget
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.run import Run
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.experiments.cells import Cell, Key, grid
from outthink.experiments.comparison import Comparison, Progress
from outthink.experiments.folder import Folder, open_folder
from outthink.experiments.interrupt import gently
from outthink.experiments.price import lacking, one_sample, quote
from outthink.experiments.questions import Question, Questions, load
from outthink.experiments.setting import DEFAULT_MODEL, Setting, open_setting
from outthink.experiments.solve import failure
from outthink.experiments.versions import versions
from outthink.models.function import Judge
from outthink.papers import load as load_paper
from outthink.papers.solver import Solver

Watch = Callable[[Progress], None]


def compare(
    task: str | Questions, *, methods: Sequence[str | Solver], budgets: Sequence[str | int | Budget],
    model: str | Setting = DEFAULT_MODEL, verifier: str | Judge | None = None, limit: int | None = None,
    base_url: str | None = None, api_key: str | None = None, out: str | Path | None = None, resume: bool = False,
    command: str = "", watch: Watch | None = None, pooled: Mapping[str, str] | None = None, together: int = 256,
    seed: int = 0, **settings: Any,
) -> Comparison:  # fmt: skip
    """Return the accuracy of every method at every budget on the same problems.

    Each problem is a run of its own with its own budget; all share the batches of one runtime. A problem has the same
    seed whatever the method and budget, so methods are compared on equal luck.

    methods: names or Solvers. budgets: of one problem. out: a folder that keeps every finished cell, rows, plot and
    report; with `resume`, what it holds is not done again. watch: called after every cell. together: how many cells
    are at work at once; it changes nothing but speed. pooled: method name -> the model of the setting that
    replays recorded samples for it (models/pool.py).
    settings: max_tokens, temperature, ... of every sample.

    Ctrl-C ends early: the result has `interrupted` set and what is done is kept. Cells whose model failed are not
    kept, so `resume` tries them again; BackendError is raised if nothing but failures came.
    """
    limits = _budgets(budgets)
    _distinct(methods)
    with ExitStack() as stack:
        questions = load(task, limit=limit) if isinstance(task, str) else task
        setting = model if not isinstance(model, str) else stack.enter_context(
            open_setting(model, verifier=verifier, base_url=base_url, api_key=api_key, **settings))  # fmt: skip
        plan = _plan(questions, setting, methods, limits, pooled or {}, seed, command)
        _affordable(plan, limits)
        folder = stack.enter_context(open_folder(out, plan.header(), resume=resume)) if out is not None else None
        done = [cell for cell in folder.cells if cell.key in plan.keys] if folder is not None else []
        comparison = Comparison(
            questions.name, setting.model, tuple(plan.solvers), limits, list(done), command=command, versions=versions()
        )
        _Work(plan, comparison, folder, watch, together).go()
        if folder is not None:
            comparison.write(folder)
    if comparison.failed and not comparison.cells:
        raise BackendError(comparison.failed[0])
    return comparison


@dataclass(slots=True)
class _Plan:
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
        """What must be equal for results to be of one comparison, and what may grow."""
        return {
            "task": self.questions.name, "task_digest": self.questions.digest, "problems": len(self.questions.items),
            "model": self.setting.model, "verifier": self.setting.verifier, "seed": self.seed,
            "settings": dict(self.setting.knobs), "methods": list(self.solvers), "budgets": list(self.budgets),
            "pooled": sorted(self.pooled), "versions": versions(), "command": self.command,
        }  # fmt: skip


@dataclass(slots=True)
class _Work:
    plan: _Plan
    comparison: Comparison
    folder: Folder | None
    watch: Watch | None
    together: int
    ended: list[tuple[Key, Run]] = field(default_factory=list)
    share: float = 0.0  # seconds that a cell at work from the beginning until now would have had for itself
    began: dict[Key, float] = field(default_factory=dict)

    def go(self) -> None:
        """Do every cell that is not done; stop early on Ctrl-C or when the model does nothing but fail."""
        plan, comparison = self.plan, self.comparison
        keys = iter(grid(plan.by_id, list(plan.solvers), list(plan.budgets.values()), done={c.key for c in comparison.cells}))
        runtime = plan.setting.runtime()
        progress = Progress(comparison, total=len(plan.keys))
        live: dict[Key, Run] = {}
        clock = time.monotonic
        last = clock()

        with gently(lambda: runtime.post(_nothing)) as asked:
            while not asked:
                while len(live) < self.together and not self._hopeless(progress) and (key := next(keys, None)) is not None:
                    live[key] = self._start(runtime, key)
                if not live:
                    break
                runtime.step()
                now = clock()
                self.share, last = self.share + (now - last) / len(live), now
                for key, run in self.ended:
                    del live[key]
                    self._settle(key, run)
                    if self.watch is not None:
                        self.watch(progress)
                self.ended.clear()
            comparison.interrupted = bool(asked) and (bool(live) or next(keys, None) is not None)
            for run in live.values():
                run.cancel()
            while any(not run.done for run in live.values()):
                runtime.step()

    def _start(self, runtime: Runtime, key: Key) -> Run:
        name, method, budget = key
        plan = self.plan
        solver, question = plan.solvers[method], plan.by_id[name]
        coro = solver(question.problem, seed=fold(plan.seed, name))
        run = runtime.start(coro, budget=plan.budgets[budget], name=f"{name} {method} {budget}", answer=solver.answer,
                            trace="costs")  # fmt: skip
        self.began[key] = self.share
        run.when_done(lambda: self.ended.append((key, run)))
        return run

    def _settle(self, key: Key, run: Run) -> None:
        name, method, budget = key
        seconds = self.share - self.began.pop(key)
        message = None if run.answer is not None else failure(run)
        if isinstance(run.error, BackendError) or (run.error is None and message is not None):
            self.comparison.failed.append(f"{method} at {budget} on {name}: {message or run.error}")
            return
        if run.error is not None:
            raise run.error
        correct = self.plan.questions.grade(self.plan.by_id[name].reference, run.answer)
        cell = Cell(name, method, budget, run.answer, correct, run.value, str(run.stopped), run.cost, seconds, run.exact,
                    method in self.plan.pooled)  # fmt: skip
        self.comparison.cells.append(cell)
        if self.folder is not None:
            self.folder.add(cell)

    def _hopeless(self, progress: Progress) -> bool:
        """Whether nothing more should begin: several failures, and more of them than successes in this sitting."""
        failed = len(self.comparison.failed)
        return failed >= 3 and failed > len(self.comparison.cells) - progress.before


def _nothing() -> None:
    pass


def _budgets(budgets: Sequence[str | int | Budget]) -> tuple[Budget, ...]:
    if not budgets:
        raise InvalidInput("no budgets; give at least one, for example --budgets 256,1k,4k")
    out = tuple(Budget.parse(budget) for budget in budgets)
    names = [str(budget) for budget in out]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise InvalidInput(f"budget {again} was given twice; name every budget once")
    return out


def _name(method: str | Solver) -> str:
    """Return the short name of a method; raises InvalidInput if there is none of this name."""
    return load_paper(method).name.split("/")[-1] if isinstance(method, str) else method.name


def _distinct(methods: Sequence[str | Solver]) -> None:
    names = [_name(method) for method in methods]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise InvalidInput(f"method {again!r} was given twice; name every method once")
    if not names:
        raise InvalidInput("no methods; give at least one, for example --methods greedy,majority")


def _plan(questions: Questions, setting: Setting, methods: Sequence[str | Solver], budgets: Sequence[Budget],
          pooled: Mapping[str, str], seed: int, command: str) -> _Plan:  # fmt: skip
    names = [_name(method) for method in methods]
    solvers = {name: setting.solver(method, answer_of=questions.answer_of, policy=pooled.get(name))
               for name, method in zip(names, methods, strict=True)}  # fmt: skip
    return _Plan(questions, setting, solvers, {str(budget): budget for budget in budgets}, pooled, seed, command)


def _affordable(plan: _Plan, budgets: Sequence[Budget]) -> None:
    """Raise if some budget cannot pay for one sample of any problem: then its rows could only say 0 of n."""
    problems = [question.problem for question in plan.questions.items]
    for budget in budgets:
        if all(lacking(plan.setting, problem, budget) for problem in problems):
            cheapest = min(problems, key=lambda problem: one_sample(plan.setting, problem, tokens=1).tokens)
            needs = quote(plan.setting, cheapest, lacking(plan.setting, cheapest, budget))
            raise InvalidInput(f"the budget of {budget} cannot pay for one sample of {plan.setting.model} on any problem. Of "
                               f"{cheapest.id}, the cheapest: {needs}")  # fmt: skip
