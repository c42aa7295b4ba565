"""Diverse verifier tree search.

Paper: Beeching, Tunstall, Rush 2024, "Scaling test-time compute with open models", Hugging Face.
Idea: split a beam into N/M independent subtrees, so that one overrated step cannot take them all.
Entry: solver; `outthink solve "PROMPT" --method dvts`
Recipe: Text (step after step) x ProcessReward(aggregate) x search(rule=dvts(fan), width, choose=weighted). The
  published code has N=4 and M=4, at most 40 steps.
Spends: one prompt and about N answers, the children that are pruned included; the reward model reads the prompt and
  every child once.
Stops: when the best node of every subtree is finished, or at max_steps. With width=None sweeps follow each other
  until the budget pays for no other path, each no wider than it can be carried to the end, and all their leaves
  count. Ties: the earlier node; between answers a seeded hash. Without any answer: greedy, which was set aside (with
  width=None: which came first).
Needs: sample, continue, stop, score
Differs: only finished paths are candidates, where the published code returns unfinished siblings too. With width=None
  the greedy answer is one of the leaves.
Claim: none; a baseline.
Use it when: a beam would be right, but the reward model is not to be trusted that far.
Not when: the budget pays for one subtree only: then it is a beam of width M.
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
    """Return DVTS; width: N, fan: M; width None: what the budget carries."""
    rule = rules.dvts(fan=fan)
    return recipe.stepwise("dvts", models, rule, width=width, choose=choose, aggregate=aggregate)
