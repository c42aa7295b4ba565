"""Large Language Monkeys: repeated sampling, its coverage, and what is lost in choosing.

Paper: Brown, Juravsky, Ehrlich, Clark, Le, Ré, Mirhoseini 2024, "Large Language Monkeys: Scaling Inference Compute
  with Repeated Sampling", arXiv:2407.21787.
Idea: draw many independent samples. The share of problems that any of them solves (coverage) grows as exp(a * k**b),
  over orders of magnitude; what a rule without an oracle picks from them (a vote, a reward model) stops growing long
  before.
Entry: solver and analysis; `outthink solve "PROMPT" --method monkeys`, and `study(pools)` for the curves and the fit.
Recipe: Text (whole completions) x ProcessReward where the choice needs one x sample(n, choose). The paper draws N =
  10,000 at temperature 0.6 and top_p 0.95, and chooses by majority, by the best reward, or by a vote weighted with
  it. `study`: k is its k, coverage its c, a and b those of log c = a * k**b, gap = coverage minus success of the
  choice.
Spends: one prompt and n answers; where the choice needs rewards, the reward model reads every answer once. The paper
  leaves the verifier uncounted; here it is not.
Stops: when n answers came, or with n=None when the budget pays for no other. Ties: by a seeded hash of the answer.
  Without any answer: greedy, which was set aside (with n=None: which came first, and takes part).
Needs: sample
Differs: best-of-k is exact, with ties in expectation, where the paper averages 100 random subsets; majorities are
  averaged over subsets, as there, but a tie counts its share where the published evaluations take the first. The fit
  is joined by a Beta law of the success rates, which extrapolates from a model of the problems. An answer that cannot
  be parsed is wrong for coverage and does not vote.
Claim: coverage on held-out word problems follows exp(a * k**b) with residual below 0.03; from 16 to 64 samples
  coverage gains more than majority does; the small model with more samples covers more than the large one at equal
  FLOPs.
Use it when: an exact verifier exists (tests, proofs, checkers), or to learn how much a better choice could gain.
Not when: there is only a vote to choose by: past some dozens of samples it gains nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from ...analysis.coverage import BetaLaw, PowerLaw, fit_beta_law, fit_power_law
from ...analysis.estimators import best_of_k, coverage, majority_at_k, spaced
from ...core.errors import InvalidInput
from ...core.seeds import fold
from ...core.verdict import Problem
from ...methods.sample import sample
from ...methods.vote import choice_named
from ...spaces.text import State
from .. import solver as recipe
from ..solver import SAMPLING, SCORING, Models, Solver

NEEDS = SAMPLING


def solver(models: Models, *, n: int | None = None, choose: str = "majority") -> Solver:
    """Return repeated sampling; choose: "majority", or "best" or "weighted", which need a reward model."""
    pick = choice_named(choose)
    judge = None if choose == "majority" else models.judge()

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.whole(problem.prompt)
        return sample(text, judge, choose=pick, n=n, pace=recipe.pace(text, judge), seen=seen, seed=seed)

    return recipe.solver("monkeys", models, method, needs=SAMPLING if judge is None else SCORING, planned=n is None)


@dataclass(frozen=True, slots=True)
class Pool:
    """The samples of one problem: their answers (None: unparsable), the reference, and their scores, if any."""

    answers: Sequence[str | None]
    reference: str
    scores: Sequence[float] | None = None

    @property
    def right(self) -> list[bool]:
        return [answer == self.reference for answer in self.answers]


@dataclass(frozen=True, slots=True)
class Study:
    """Curves over `ks`, as long as it: shares of problems. `best` None where there were no scores.

    power, beta: the laws fitted to coverage and to the counts.
    """

    ks: tuple[int, ...]
    coverage: tuple[float, ...]
    majority: tuple[float, ...]
    best: tuple[float, ...] | None
    power: PowerLaw
    beta: BetaLaw

    def gap(self, k: int) -> float:
        """Return what a perfect choice from `k` samples would gain over the better of vote and reward."""
        i = self.ks.index(k)
        return self.coverage[i] - max(self.majority[i], self.best[i] if self.best is not None else 0.0)


def study(pools: Sequence[Pool], *, points: int = 40, subsets: int = 100, seed: int = 0) -> Study:
    """Return coverage and what choices make of it, for k from 1 to the size of the pools, and the fitted laws.

    Raises InvalidInput if there are no pools, or they differ in size.
    """
    sizes = {len(pool.answers) for pool in pools}
    if len(sizes) != 1:
        raise InvalidInput(f"pools of sizes {sorted(sizes)}; a study needs at least one, and all of one size")
    counts = [(len(pool.answers), sum(pool.right)) for pool in pools]
    ks = tuple(spaced(sizes.pop(), points))
    covered = tuple(coverage(counts, k) for k in ks)

    def voted(k: int) -> float:
        rates = (
            majority_at_k(pool.answers, pool.reference, k, subsets=subsets, seed=fold(seed, i, k))
            for i, pool in enumerate(pools)
        )
        return sum(rates) / len(pools)

    best = None
    if all(pool.scores is not None for pool in pools):
        best = tuple(sum(best_of_k(pool.scores or (), pool.right, k) for pool in pools) / len(pools) for k in ks)
    return Study(ks, covered, tuple(map(voted, ks)), best, fit_power_law(ks, covered), fit_beta_law(counts))
