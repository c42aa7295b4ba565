"""Greedy decoding.

Paper: none; the answer a model gives when it is asked once.
Idea: at every token take the likeliest. Everything that costs more has to beat it.
Entry: solver; `outthink solve "PROMPT" --method greedy`
Recipe: Text (whole completions, temperature 0) x no verifier x one rollout.
Spends: one prompt and one answer.
Stops: at the end of the text, at max_tokens, or where the budget ends; then the answer is what was written, if it
  parses.
Needs: sample
Differs: not at all.
Claim: none; a baseline.
Use it when: one answer is good enough, or all that can be paid for.
Not when: there is budget for more than one.
"""

from __future__ import annotations

from ...core.verdict import Problem
from ...methods.rollout import once
from ...spaces.text import State
from ..solver import SAMPLING, Models, Solver

NEEDS = SAMPLING


def solver(models: Models) -> Solver:
    """Return greedy decoding. It is its own guarantee of an answer, so nothing is set aside."""

    async def run(problem: Problem, *, seed: int) -> State:
        return await once(models.whole(problem.prompt, greedy=True), seed=seed)

    run.__name__ = "greedy"
    return Solver("greedy", NEEDS, run, lambda state: models.answer_of(state.text))
