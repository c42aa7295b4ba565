"""Best-of-N.

Paper: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168.
Idea: sample many solutions, score each, and take the best.
Entry: solver; `outthink solve "PROMPT" --method best_of_n`
Recipe: Text (whole completions) x ProcessReward(aggregate) x sample(n, choose=best). The paper takes N=100; aggregate
  "last" is best for values learnt from rollouts.
Spends: one prompt and n answers; the reward model reads the prompt once and every answer once.
Stops: when n answers came. With n=None, when the budget pays for no other: a draft starts only if the longest allowed
  could be finished and scored, the last ones if the longest so far could; what is cut then abstains. Ties: by a
  seeded hash of the answer. Without any answer: greedy, which was set aside (with n=None: which came first).
Needs: sample, score
Differs: with n=None the greedy answer is one of the N. If there can be no second answer, none is scored.
Claim: none; a baseline.
Use it when: the verifier ranks well at the very top.
Not when: the verifier has flaws that many samples will find: the best of very many is then what fools it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.verdict import Problem
from ...methods.sample import sample
from ...methods.vote import best
from ...spaces.text import State
from ...verifiers.process_reward import Aggregate
from .. import solver as recipe
from ..solver import SCORING, Models, Solver

NEEDS = SCORING


def solver(models: Models, *, n: int | None = None, aggregate: Aggregate = "last") -> Solver:
    """Return best-of-N; n: how many answers, None for as many as the budget pays for."""
    judge = models.judge(aggregate=aggregate)

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return sample(text, judge, choose=best, n=n, pace=recipe.pace(text, judge), seen=seen, seed=seed)

    return recipe.solver("best_of_n", models, method, needs=NEEDS, planned=n is None)
