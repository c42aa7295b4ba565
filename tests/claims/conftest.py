"""What claim tests share: the embedded models, pools of samples, runs of a solver, and where results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outthink.core.cost import Cost
from outthink.core.request import Sample
from outthink.core.run import Run
from outthink.core.runtime import Runtime
from outthink.core.seeds import fold
from outthink.core.trace import Served
from outthink.core.verbs import gather
from outthink.core.verdict import Problem
from outthink.models.open import card_of, open_model
from outthink.papers import claims
from outthink.papers.solver import Solver
from outthink.spaces.text import Text

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Played:
    """Runs of one solver, seed by seed: rights[seed][problem], and the runs themselves in the same order."""

    rights: list[list[float]]
    runs: list[list[Run]]

    @property
    def per_problem(self) -> list[float]:
        """The share of seeds with the right answer, for each problem."""
        return [sum(column) / len(column) for column in zip(*self.rights, strict=True)]

    @property
    def tokens(self) -> float:
        """Mean tokens of a problem."""
        runs = [run for row in self.runs for run in row]
        return sum(run.cost.tokens for run in runs) / len(runs)

    @property
    def longest(self) -> float:
        """Mean over runs of the longest trace, in tokens: what somebody who waits sees of it."""
        runs = [run for row in self.runs for run in row]
        return sum(max(e.cost.total("output") for e in _served(run)) for run in runs) / len(runs)


def _served(run: Run) -> list[Served]:
    assert run.trace is not None
    return [event for event in run.trace.events if isinstance(event, Served)]


@pytest.fixture
def play() -> Callable[..., Played]:
    """`play(models, solver, problems, right, seeds)`: all problems together, one runtime for each seed."""

    def run(
        models: Sequence[str], solver: Solver, problems: Sequence[Any], right: Callable[[Any, str | None], bool],
        seeds: Sequence[int], budget: str | None = None,
    ) -> Played:  # fmt: skip
        played = Played([], [])
        for seed in seeds:
            backends = {name: open_model(name) for name in models}
            runtime = Runtime(backends, cards={name: card_of(name) for name in models})
            runs = [
                runtime.start(
                    solver(Problem(p.id, p.prompt), seed=fold(seed, p.id)), budget=budget, answer=solver.answer,
                    trace="costs",
                )
                for p in problems
            ]  # fmt: skip
            runtime.drive()
            runtime.close()
            assert all(run.error is None for run in runs), [run.error for run in runs if run.error]
            played.runs.append(runs)
            played.rights.append([float(right(p, run.answer)) for p, run in zip(problems, runs, strict=True)])
        return played

    return run


@pytest.fixture
def draw() -> Callable[..., tuple[list[list[str | None]], Cost]]:
    """`draw(model, problems, answer_of, n, seed)`: n answers to each problem, and what they cost together."""

    def run(
        model: str, problems: Sequence[Any], answer_of: Callable[[str], str | None], *, n: int, seed: int
    ) -> tuple[list[list[str | None]], Cost]:
        async def pool(problem: Any) -> list[str | None]:
            text = Text(problem.prompt, model, answer_of, max_tokens=128, temperature=0.8)
            root = await text.root(0)
            drafts = await gather(
                Sample(root.prefix, model, fold(seed, problem.id, i), max_tokens=128, temperature=0.8) for i in range(n)
            )
            return [answer_of(draft.text) for draft in drafts]

        runtime = Runtime({model: open_model(model)})
        runs = [runtime.start(pool(problem), answer=lambda state: "drawn", trace=None) for problem in problems]
        runtime.drive()
        runtime.close()
        assert all(run.error is None for run in runs), [run.error for run in runs if run.error]
        return [run.state for run in runs], Cost.sum(run.cost for run in runs)

    return run


@pytest.fixture
def record() -> Callable[[claims.Result], None]:
    """Write a result where METHODS.md is made from."""

    def write(result: claims.Result) -> None:
        claims.write(result, root=ROOT)

    return write
