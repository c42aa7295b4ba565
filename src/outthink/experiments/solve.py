"""Solve one prompt within a budget."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from outthink.core.budget import Budget, Card
from outthink.core.errors import BackendError, InvalidInput
from outthink.core.run import Run, Watcher
from outthink.core.runtime import Runtime
from outthink.core.verdict import Problem
from outthink.experiments.interrupt import gently
from outthink.experiments.price import shortfall
from outthink.experiments.result import Result
from outthink.experiments.setting import DEFAULT_MODEL, Recipe, Setting, open_setting
from outthink.models.function import Judge
from outthink.papers import load
from outthink.papers.solver import Solver


def solve(
    prompt: str, *, method: str | Solver | Recipe | None = None, model: str | Setting = DEFAULT_MODEL,
    budget: str | int | Budget = "2k tokens", verifier: str | Judge | None = None,
    answer_of: Callable[[str], str | None] | None = None, knobs: Mapping[str, Any] | None = None,
    base_url: str | None = None, api_key: str | None = None, cards: Mapping[str, Card] | None = None,
    watch: Watcher | None = None, seed: int = 0, **settings: Any,
) -> Result:  # fmt: skip
    """Return the best answer that `method` finds for `prompt` within `budget`.

    method: a name (`outthink papers`), a Solver, or a recipe (Models -> Solver); None takes "rebase" where there is a
      verifier, else "majority".
    model: a name, or what `open_setting` gave, which saves opening it again.
    verifier: the name of a reward model, or a function (prompt, text) -> number in [0, 1].
    answer_of: how to find the answer in a completion. knobs: of the method. settings: max_tokens, temperature, ...
    watch: is called with every event as it happens.

    Works inside a running event loop too, but blocks it; `asolve` does not. Ctrl-C gives what had been found so far.
    Raises InvalidInput or Unsupported before anything is spent, also if the budget cannot pay for one sample;
    BackendError if nothing came because the model failed.
    """
    limits = _checked(prompt, method, budget)
    with ExitStack() as stack:
        job = _job(
            prompt,
            method,
            _open(stack, model, verifier, base_url, api_key, cards, settings),
            limits,
            answer_of,
            knobs,
            seed,
        )
        runtime = job.setting.runtime()
        run = job.start(runtime, watch)
        with gently(lambda: runtime.post(_nothing)) as asked:
            while not run.done:
                if asked:
                    run.cancel()
                runtime.step()
        return job.result(run)


async def asolve(
    prompt: str, *, method: str | Solver | Recipe | None = None, model: str | Setting = DEFAULT_MODEL,
    budget: str | int | Budget = "2k tokens", verifier: str | Judge | None = None,
    answer_of: Callable[[str], str | None] | None = None, knobs: Mapping[str, Any] | None = None,
    base_url: str | None = None, api_key: str | None = None, cards: Mapping[str, Card] | None = None, seed: int = 0,
    **settings: Any,
) -> Result:  # fmt: skip
    """Like `solve`, awaitable: the event loop goes on meanwhile."""
    limits = _checked(prompt, method, budget)
    with ExitStack() as stack:
        job = _job(
            prompt,
            method,
            _open(stack, model, verifier, base_url, api_key, cards, settings),
            limits,
            answer_of,
            knobs,
            seed,
        )
        run = await job.setting.runtime().arun(job.coro(), **job.arguments)
        return job.result(run)


@dataclass(frozen=True, slots=True)
class _Job:
    problem: Problem
    solver: Solver
    setting: Setting
    budget: Budget
    seed: int

    def coro(self) -> Coroutine[Any, Any, Any]:
        return self.solver(self.problem, seed=self.seed)

    @property
    def arguments(self) -> dict[str, Any]:
        header = {"method": self.solver.name, "model": self.setting.model, "verifier": self.setting.verifier,
                  "seed": self.seed, "budget": str(self.budget), "prompt": self.problem.prompt,
                  "oracle": self.solver.oracle}  # fmt: skip
        return {"budget": self.budget, "name": "solve", "answer": self.solver.answer, "header": header, "trace": "full"}

    def start(self, runtime: Runtime, watch: Watcher | None) -> Run:
        run = runtime.start(self.coro(), **self.arguments)
        if watch is not None:
            run.subscribe(watch)
        return run

    def result(self, run: Run) -> Result:
        if run.error is not None:
            raise run.error
        if run.answer is None:
            short = shortfall(run, self.setting, self.problem, self.budget)
            if short is not None:
                raise InvalidInput(short)
            failed = failure(run)
            if failed is not None:
                raise BackendError(f"{self.setting.model} gave no answer: {failed}")
        text = self.solver.text(run.state) if run.state is not None else None
        return Result(self.problem.prompt, run.answer, text, run.value, str(run.stopped), run.cost, run.seconds,
                      self.seed, self.solver.name, self.setting.model, self.budget, run)  # fmt: skip


def _nothing() -> None:
    """What is posted to a sleeping runtime so that it wakes up."""


def failure(run: Run) -> str | None:
    """Return the message of the last attempt that failed for good, None if none did or the run has no trace."""
    served = list(run.trace.served()) if run.trace is not None else []
    return next((e.message for e in reversed(served) if e.status == "failed" and not e.retry), None)


def _open(stack: ExitStack, model: str | Setting, verifier: str | Judge | None, base_url: str | None,
          api_key: str | None, cards: Mapping[str, Card] | None, settings: Mapping[str, Any]) -> Setting:  # fmt: skip
    if not isinstance(model, str):
        given = [
            name
            for name, value in (("verifier", verifier), ("base_url", base_url), ("cards", cards), *settings.items())
            if value
        ]
        if given:
            raise InvalidInput(f"{', '.join(given)}: belongs to open_setting(...), as the model is open already")
        return model
    return stack.enter_context(
        open_setting(model, verifier=verifier, base_url=base_url, api_key=api_key, cards=cards, **settings)
    )


def _checked(prompt: str, method: str | Solver | Recipe | None, budget: str | int | Budget) -> Budget:
    """Find mistakes that need no model, before one is loaded; return the budget."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInput("the prompt is empty; give the text that the model should answer")
    if isinstance(method, str):
        load(method)
    return Budget.parse(budget)


def _job(prompt: str, method: str | Solver | Recipe | None, setting: Setting, budget: Budget,
         answer_of: Callable[[str], str | None] | None, knobs: Mapping[str, Any] | None,
         seed: int) -> _Job:  # fmt: skip
    if method is None:
        method = "rebase" if setting.verifier is not None else "majority"
    solver = setting.solver(method, answer_of=answer_of, **(knobs or {}))
    name = "prompt-" + blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return _Job(Problem(name, prompt), solver, setting, budget, seed)
