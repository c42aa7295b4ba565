"""Majority vote (self-consistency).

Paper: Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv:2203.11171.
Idea: sample many solutions; the answer that most of them reach is the likeliest to be right.
Entry: solver; `outthink solve "PROMPT" --method majority`
Recipe: Text (whole completions) x no verifier x sample(n, choose=majority). The paper takes n=40 and temperature 0.7;
  ours is None, and what the models say.
Spends: one prompt and n answers.
Stops: when n answers came. With n=None, when the budget pays for no other: a draft starts only if the longest allowed
  could be finished, the last ones if the longest so far could; what is cut then abstains. Ties: by a seeded hash of
  the answer. Without any answer: greedy, which was set aside (with n=None: which came first).
Needs: sample
Differs: with n=None the greedy answer is one of the votes, and ties go to it.
Claim: none; a baseline.
Use it when: there is no verifier, and answers can be compared.
Not when: the model is wrong more often than right on the problem: then more votes confirm the error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.verdict import Problem
from ...methods.sample import sample
from ...methods.vote import majority
from ...spaces.text import State
from .. import solver as recipe
from ..solver import SAMPLING, Models, Solver

NEEDS = SAMPLING


def solver(models: Models, *, n: int | None = None) -> Solver:
    """Return majority vote (self-consistency); n: how many answers, None for as many as the budget pays for."""

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return sample(text, choose=majority, n=n, pace=recipe.pace(text), seen=seen, seed=seed)

    return recipe.solver("majority", models, method, needs=NEEDS, planned=n is None)
