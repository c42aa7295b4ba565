"""Beam search over steps.

Paper: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
  Parameters", arXiv:2408.03314.
Idea: grow N partial solutions step by step; after each step keep the N/M that the reward model likes best and branch
  each M times.
Entry: solver; `outthink solve "PROMPT" --method beam`
Recipe: Text (step after step) x ProcessReward(aggregate) x search(rule=beam(fan), width, choose=weighted). The
  paper's N is width and its M fan (4, or the root of N); at most 40 steps.
Spends: one prompt and about N answers, the children that are pruned included; the reward model reads the prompt and
  every child once.
Stops: when all paths are finished, or at max_steps. With width=None sweeps follow each other until the budget pays
  for no other path, each no wider than it can be carried to the end, and all their leaves count. Ties: the earlier
  node; between answers a seeded hash. Without any answer: greedy, which was set aside (with width=None: which came
  first).
Needs: sample, continue, stop, score
Differs: a finished path takes its place with it, so N paths are paid for, where the published code grows the others
  to N again; nothing is duplicated to fill up. With width=None the greedy answer is one of the leaves.
Claim: none; a baseline.
Use it when: steps are long enough that a wrong one is worth abandoning, and the budget is small.
Not when: the reward model can be fooled: a beam finds how, the more surely the wider it is.
"""

from __future__ import annotations

from ...methods import rules
from ...verifiers.process_reward import Aggregate
from .. import solver as recipe
from ..solver import STEPWISE, Models, Solver

NEEDS = STEPWISE


def solver(
    models: Models, *, width: int | None = None, fan: int = 4, choose: str = "weighted",
    aggregate: Aggregate = "last",
) -> Solver:  # fmt: skip
    """Return beam search; width: N, fan: M, both of the paper; width None: what the budget carries."""
    rule = rules.beam(fan=fan)
    return recipe.stepwise("beam", models, rule, width=width, choose=choose, aggregate=aggregate)
