"""Weighted majority (weighted best-of-N).

Paper: Li et al. 2022, "Making Language Models Better Reasoners with Step-Aware Verifier", arXiv:2206.02336; Snell et
  al. 2024, arXiv:2408.03314.
Idea: sample many solutions, and let each vote with the weight of its score: many good ones beat one that fools the
  verifier.
Entry: solver; `outthink solve "PROMPT" --method weighted_majority`
Recipe: Text (whole completions) x ProcessReward(aggregate) x sample(n, choose=weighted). Snell et al. take the last
  step value as weight.
Spends: one prompt and n answers; the reward model reads the prompt once and every answer once.
Stops: when n answers came. With n=None, when the budget pays for no other: a draft starts only if the longest allowed
  could be finished and scored, the last ones if the longest so far could; what is cut then abstains. Ties: by a
  seeded hash of the answer. Without any answer: greedy, which was set aside (with n=None: which came first).
Needs: sample, score
Differs: with n=None the greedy answer is one of the votes. If there can be no second answer, none is scored.
Claim: none; a baseline.
Use it when: there is a verifier, and answers can be compared; the safest use of a reward model.
Not when: answers cannot be compared: use best_of_n.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.verdict import Problem
from ...methods.sample import sample
from ...methods.vote import weighted
from ...spaces.text import State
from ...verifiers.process_reward import Aggregate
from .. import solver as recipe
from ..solver import SCORING, Models, Solver

NEEDS = SCORING


def solver(models: Models, *, n: int | None = None, aggregate: Aggregate = "last") -> Solver:
    """Return weighted majority (weighted best-of-N); n: how many answers, None for as many as the budget pays for."""
    judge = models.judge(aggregate=aggregate)

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return sample(text, judge, choose=weighted, n=n, pace=recipe.pace(text, judge), seen=seen, seed=seed)

    return recipe.solver("weighted_majority", models, method, needs=NEEDS, planned=n is None)
