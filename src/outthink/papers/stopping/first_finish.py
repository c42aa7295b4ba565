"""First Finish Search: start many, take the first to finish.

Paper: Agarwal, Sengupta, Chakraborty 2025, "First Finish Search: Efficient Test-Time Scaling in Large Language
  Models", arXiv:2505.18149.
Idea: where right answers tend to be shorter than wrong ones, the first of n parallel samples to finish is likelier
  right than any one of them, and nobody waits for the long ones.
Entry: solver; `outthink solve "PROMPT" --method first_finish`
Recipe: Text (whole completions) x no verifier x race(n, k). n = 4 and k = 1 in the paper (FFS-k@N: the vote of the
  first k of N; k = N is a majority vote); temperature 0.6, top_p 0.95.
Spends: one prompt, and for every trace what it had written when the last winner finished: about n times the length of
  the k-th shortest. The tokens of the cancelled traces are counted, those after the stop signal too; published tables
  leave them out.
Stops: at the k-th finish with an answer that parses; a trace that ends without one is no finish. If none has one, or
  the budget ends first: greedy, which was set aside. Where the budget cannot carry n traces to their end, fewer
  start. Ties in length: the order in which the backend reports, so this method depends on the order of completion.
Needs: sample
Differs: the start strings by which the published code tells its samples apart are left out: samples differ by their
  seed. The reserve for greedy is never spent when a trace finishes.
Claim: where wrong answers are longer (the toy world "longer"): at equal mean tokens at least as accurate as a
  majority vote, with a shorter chain of tokens; where they are shorter (the world "shorter"): less accurate than one
  sample.
Use it when: latency matters, and right answers are the shorter ones; measure that first.
Not when: short answers are the careless ones. More traces then make it worse.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from ...core.errors import InvalidInput
from ...core.verdict import Problem
from ...methods.race import race
from ...spaces.text import State
from .. import solver as recipe
from ..solver import SAMPLING, Models, Solver

NEEDS = SAMPLING


def solver(models: Models, *, n: int = 4, k: int = 1) -> Solver:
    """Return first finish search; n: how many start, k: how many have to finish."""
    if not 1 <= k <= n:
        raise InvalidInput(f"k is {k} and n is {n}; k of n traces finish, so 1 <= k <= n")

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return race(text, n=n, k=k, pace=recipe.pace(text), seed=seed)

    return recipe.solver("first_finish", models, method, needs=NEEDS, planned=False)
