"""REBASE: reward-balanced search.

Paper: Wu et al. 2025, "Inference Scaling Laws: An Empirical Analysis of Compute-Optimal Inference for Problem-Solving
  with Language Models", arXiv:2408.00724.
Idea: share the width of a level among its nodes in proportion to a softmax of their rewards; all finished leaves
  vote.
Entry: solver; `outthink solve "PROMPT" --method rebase`
Recipe: Text (step after step) x ProcessReward(aggregate) x search(rule=rebase(balance, exact), width,
  choose=weighted). N is width; T_b is balance, 0.1 in the paper (0.2 in its shipped configuration).
Spends: one prompt and about N answers, the children that are pruned included; the reward model reads the prompt and
  every child once.
Stops: when N paths are finished, or at max_steps. With width=None sweeps follow each other until the budget pays for
  no other path, each no wider than it can be carried to the end, and all their leaves count. Ties: the earlier node;
  between answers a seeded hash. Without any answer: greedy, which was set aside (with width=None: which came first).
Needs: sample, continue, stop, score
Differs: exact=True shares as the published code does, which always sums to the width, where the printed formula may
  not. A node whose score is missing gives its width to the others, where the code loses it. The reward model is
  charged. With width=None the greedy answer is one of the leaves.
Claim: none; a baseline.
Use it when: there is a process reward model, and a budget of four to some dozens of answers.
Not when: the budget is large: flat samples with weighted votes then catch up, because search gives up diversity.
"""

from __future__ import annotations

from ...methods import rules
from ...verifiers.process_reward import Aggregate
from .. import solver as recipe
from ..solver import STEPWISE, Models, Solver

NEEDS = STEPWISE


def solver(
    models: Models, *, width: int | None = None, balance: float = 0.1, exact: bool = True, choose: str = "weighted",
    aggregate: Aggregate = "last",
) -> Solver:  # fmt: skip
    """Return REBASE; width: N, balance: T_b; exact: shares by sequential ceilings, else rounded one by one."""
    rule = rules.rebase(temperature=balance, exact=exact)
    return recipe.stepwise("rebase", models, rule, width=width, choose=choose, aggregate=aggregate)
