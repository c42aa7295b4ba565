"""The main job: a small model answers held-out word problems better and better as it is given more compute.

    outthink demo -o outputs/demo

Greedy, majority, best-of-N, weighted majority and adaptive consistency replay one recorded pool of samples per problem
(each run is charged what its samples took when they were recorded); beam, REBASE and particle filtering sample as they
go.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outthink.core.budget import Budget
from outthink.core.errors import InvalidInput, OutOfBudget
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample
from outthink.core.seeds import fold
from outthink.core.verbs import fitting
from outthink.core.verdict import Problem
from outthink.experiments.compare import compare
from outthink.experiments.comparison import Comparison
from outthink.experiments.questions import load
from outthink.experiments.setting import Setting, open_setting
from outthink.experiments.work import Watch
from outthink.models.pool import Pool, Recording
from outthink.papers.solver import Models

MODEL = "embedded/reasoner"
POOL = f"pool/{MODEL}"
POOLED = ("greedy", "majority", "best_of_n", "weighted_majority", "adaptive_consistency")
METHODS = (*POOLED, "beam", "rebase", "particle_filtering")
BUDGETS = ("128", "256", "512", "1k", "4k")
TOGETHER = 256
LOT = 16


def demo(
    *, limit: int = 60, out: str | Path = "outputs/demo", watch: Watch | None = None,
    say: Callable[[str], None] | None = None, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Return the comparison of `METHODS` at `BUDGETS` tokens a problem; `out` is replaced.

    Checks that no problem took a token more than its budget, and raises AssertionError if one did.
    """
    out = Path(out)
    if out.exists():
        if not (out / "header.json").is_file() and any(out.iterdir()):
            raise InvalidInput(f"{out} holds something else than a comparison; choose another folder with -o")
        shutil.rmtree(out)
    questions = load("word_problems", limit=limit)
    with open_setting(MODEL) as setting:
        most = max(_tokens(Budget.parse(budget)) for budget in BUDGETS)
        recording = record(setting, [item.problem for item in questions.items], budget=most, seed=seed)
        engine: Any = setting.backends[MODEL]
        setting.backends[POOL] = Pool(recording, decode=engine.engine.vocabulary.text, of={POOL: MODEL}, seed=seed)
        setting.cards = {**setting.cards, POOL: setting.cards[MODEL]}
        if say is not None:
            say(f"recorded {sum(map(len, recording.samples.values())):,} samples of {limit} problems")
        comparison = compare(
            questions, methods=METHODS, budgets=BUDGETS, model=setting, out=out, watch=watch, seed=seed,
            pooled=dict.fromkeys(POOLED, POOL), command=f"outthink demo --limit {limit} --seed {seed} -o {out}",
        )  # fmt: skip
    over = [cell for cell in comparison.cells if cell.cost.tokens > _tokens(Budget.parse(cell.budget))]
    assert not over, f"over budget: {over[0]}"
    return comparison


def _tokens(budget: Budget) -> int:
    return budget.cap("tokens") or 0


def record(setting: Setting, problems: Sequence[Problem], *, budget: int, seed: int) -> Recording:
    """Return samples of every problem, enough for any method that samples whole answers within `budget` tokens."""
    recording, models = Recording(), setting.models()
    runtime = setting.runtime()
    slack = budget + 4 * models.max_tokens
    for start in range(0, len(problems), TOGETHER):
        runs = [runtime.start(_draw(problem, models, fold(seed, "pool", problem.id)), budget=slack, name=problem.id)
                for problem in problems[start : start + TOGETHER]]  # fmt: skip
        runtime.drive(*runs)
        for run in runs:
            if run.error is not None:
                raise run.error
            recording.take(run.trace.served() if run.trace is not None else ())
    return recording


async def _draw(problem: Problem, models: Models, seed: int) -> list[Draft | None]:
    """Draw one greedy completion, then others until the budget ends."""
    root = Prefix(problem.prompt)

    def asked(i: int, temperature: float) -> Sample:
        return Sample(root, models.policy, fold(seed, i), max_tokens=models.max_tokens, temperature=temperature,
                      top_p=models.top_p, min_p=models.min_p)  # fmt: skip

    drafts: list[Draft | None] = [await asked(-1, 0.0)]
    while None not in drafts:
        try:
            drafts += await fitting([asked(len(drafts) + i, models.temperature) for i in range(LOT)])
        except OutOfBudget:
            break
    return drafts
