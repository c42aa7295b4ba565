"""Adaptive consistency: a majority vote that stops when it is decided.

Paper: Aggarwal, Madaan, Yang, Mausam 2023, "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning
  and Coding with LLMs", arXiv:2305.11860.
Idea: sample one answer after the other; stop once the leader is very likely the commoner of the two first answers.
Entry: solver; `outthink solve "PROMPT" --method adaptive_consistency`
Recipe: Text (whole completions) x no verifier x adaptive(stop=beta(threshold), most, chunk). The paper's threshold is
  0.95 and its most 40.
Spends: one prompt and as many answers as it takes; a problem on which all agree takes four, votes of one answer only.
Stops: Beta(v1 + 1, v2 + 1) puts at least `threshold` of its mass above 1/2, v1 and v2 being the votes of the two
  first answers; or the second cannot reach the leader any more; or `most`; or the budget. Ties: by a seeded hash of
  the answer. Without any answer: greedy, which was set aside (with most=None: which came first).
Needs: sample
Differs: with most=None the greedy answer is one of the votes, and ties go to it. `chunk` samples are drawn together,
  to use batches; chunk=1 is the paper.
Claim: none; a baseline.
Use it when: problems differ in difficulty and a budget is shared: what easy ones leave is there for hard ones.
Not when: every problem has its own budget, and what it leaves unspent is of no use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.verdict import Problem
from ...methods.adaptive import adaptive, beta
from ...spaces.text import State
from .. import solver as recipe
from ..solver import SAMPLING, Models, Solver

NEEDS = SAMPLING


def solver(models: Models, *, most: int | None = None, threshold: float = 0.95, chunk: int = 2) -> Solver:
    """Return adaptive consistency; most: at most so many answers, None for as many as the budget pays for."""
    stop = beta(threshold)

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return adaptive(text, stop=stop, most=most, chunk=chunk, pace=recipe.pace(text), seen=seen, seed=seed)

    return recipe.solver("adaptive_consistency", models, method, needs=NEEDS, planned=most is None)
