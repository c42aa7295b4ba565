"""The loop of a comparison: many cells at work in one runtime, each settled and kept as it finishes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from outthink.core.errors import BackendError
from outthink.core.run import Run
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.experiments.cells import Cell, Key, grid
from outthink.experiments.comparison import Comparison, Progress
from outthink.experiments.folder import Folder
from outthink.experiments.interrupt import gently
from outthink.experiments.plan import Plan
from outthink.experiments.solve import failure

Watch = Callable[[Progress], None]
GIVE_UP = 3
"""Failed cells after which nothing more begins, if there were not more that worked."""


@dataclass(slots=True)
class Work:
    """Does the cells of `plan` that `comparison` lacks. `together`: how many are at work at once."""

    plan: Plan
    comparison: Comparison
    folder: Folder | None
    watch: Watch | None
    together: int
    ended: list[tuple[Key, Run]] = field(default_factory=list)
    share: float = 0.0  # seconds that a cell at work from the beginning until now would have had for itself
    began: dict[Key, float] = field(default_factory=dict)

    def go(self) -> None:
        """Work until all is done; end early on Ctrl-C, and begin nothing more once the model does little but fail."""
        plan, comparison = self.plan, self.comparison
        known = {cell.key for cell in comparison.cells}
        keys = iter(grid(plan.by_id, list(plan.solvers), list(plan.budgets.values()), done=known))
        runtime = plan.setting.runtime()
        progress = Progress(comparison, total=len(plan.keys))
        live: dict[Key, Run] = {}
        last = time.monotonic()
        with gently(lambda: runtime.post(_nothing)) as asked:
            while not asked:
                while len(live) < self.together and not self._hopeless(progress) and (key := next(keys, None)):
                    live[key] = self._start(runtime, key)
                if not live:
                    break
                runtime.step()
                now = time.monotonic()
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
            while not all(run.done for run in live.values()):
                runtime.step()

    def _start(self, runtime: Runtime, key: Key) -> Run:
        name, method, budget = key
        plan = self.plan
        solver = plan.solvers[method]
        coro = solver(plan.by_id[name].problem, seed=fold(plan.seed, name))
        run = runtime.start(
            coro, budget=plan.budgets[budget], name=f"{name} {method} {budget}", answer=solver.answer, trace="costs"
        )
        self.began[key] = self.share
        run.when_done(lambda: self.ended.append((key, run)))
        return run

    def _settle(self, key: Key, run: Run) -> None:
        name, method, budget = key
        seconds = round(self.share - self.began.pop(key), 4)  # as it is kept, so that what is read again is the same
        message = None if run.answer is not None else failure(run)
        if isinstance(run.error, BackendError) or (run.error is None and message is not None):
            self.comparison.failed.append(f"{method} at {budget} on {name}: {message or run.error}")
            return
        if run.error is not None:
            raise run.error
        correct = self.plan.questions.grade(self.plan.by_id[name].reference, run.answer)
        cell = Cell(
            name, method, budget, run.answer, correct, run.value, str(run.stopped), run.cost, seconds, run.exact,
            method in self.plan.pooled,
        )  # fmt: skip
        self.comparison.cells.append(cell)
        if self.folder is not None:
            self.folder.add(cell)

    def _hopeless(self, progress: Progress) -> bool:
        failed = len(self.comparison.failed)
        return failed >= GIVE_UP and failed > len(self.comparison.cells) - progress.before


def _nothing() -> None:
    """What is posted to a sleeping runtime so that it wakes up."""
