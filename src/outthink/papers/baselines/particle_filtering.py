"""Particle filtering.

Paper: Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based
  Monte Carlo Methods", arXiv:2502.01618.
Idea: sample from the posterior of solutions given that every step is accepted, instead of maximising the reward:
  resample N particles in proportion to their odds after every step.
Entry: solver; `outthink solve "PROMPT" --method particle_filtering`
Recipe: Text (step after step) x ProcessReward(aggregate) x search(rule=particles(balance, potential, resampling,
  absorb), width, choose=weighted). N is width; potential "odds" at balance 1 is the published code (a softmax of
  logits), "prob" the formula of the paper.
Spends: one prompt and about N answers, less what stopped particles save; the reward model reads the prompt and every
  child once.
Stops: when all particles have stopped, or at max_steps. With width=None sweeps follow each other until the budget
  pays for no other path, each no wider than it can be carried to the end, and all their leaves count. Ties: the
  earlier node; between answers a seeded hash. Without any answer: greedy, which was set aside (with width=None: which
  came first).
Needs: sample, continue, stop, score
Differs: the published code returns the particle with the largest weight (choose="best"); here all particles vote with
  theirs. All steps are drawn at the same temperature, where one of the published codes applies it to the first only.
  With width=None the greedy answer is one of the leaves.
Claim: none; a baseline.
Use it when: the reward model is informative but noisy: chance keeps what a maximum would throw away.
Not when: early rewards are overconfident: the particles then become one too soon.
"""

from __future__ import annotations

from ...methods import rules
from ...methods.rules import Resampling
from ...methods.widths import Potential
from ...verifiers.process_reward import Aggregate
from .. import solver as recipe
from ..solver import STEPWISE, Models, Solver

NEEDS = STEPWISE


def solver(
    models: Models, *, width: int | None = None, balance: float = 1.0, potential: Potential = "odds",
    resampling: Resampling = "multinomial", absorb: bool = True, choose: str = "weighted",
    aggregate: Aggregate = "last",
) -> Solver:  # fmt: skip
    """Return particle filtering; width: N; potential, resampling, absorb: see `rules.particles`."""
    rule = rules.particles(temperature=balance, potential=potential, resampling=resampling, absorb=absorb)
    return recipe.stepwise("particle_filtering", models, rule, width=width, choose=choose, aggregate=aggregate)
