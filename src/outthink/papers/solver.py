"""How a name becomes a run: the models a user has, and a method with every part filled in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.cost import Cost
from ..core.errors import InvalidInput
from ..core.refs import Prefix
from ..core.seeds import fold
from ..core.verdict import Answer, Problem
from ..methods.finish import finishing, opening
from ..methods.pace import Pace
from ..methods.rollout import once
from ..methods.rules import Rule
from ..methods.search import search
from ..methods.vote import choice_named
from ..spaces.text import State, Text
from ..verifiers.process_reward import Aggregate, ProcessReward

SAMPLING = frozenset({"sample"})
SCORING = frozenset({"sample", "score"})
STEPWISE = frozenset({"sample", "continue", "stop", "score"})
"""What the methods need of their backends; "score" of that of the reward model."""


def all_of(text: str) -> Answer | None:
    """Return the whole text as the answer, None of nothing but space."""
    return text.strip() or None


@dataclass(frozen=True, slots=True)
class Models:
    """What a user brings: which models to ask, and how to read them.

    policy, reward: model names as the runtime knows them; reward None: no reward model.
    answer_of: the canonical answer of a written text, None where it cannot be parsed.
    step: the string that ends a step. ending: what a prompt ends with; added where it is missing (shells strip the line
      break that the embedded models expect). max_tokens, max_steps: where an answer ends at the latest.
    temperature, top_p, min_p: of every draft that is not greedy.
    """

    policy: str
    reward: str | None = None
    answer_of: Callable[[str], Answer | None] = all_of
    step: str = "\n"
    ending: str = ""
    max_tokens: int = 128
    max_steps: int = 16
    temperature: float = 0.8
    top_p: float = 1.0
    min_p: float = 0.0

    def asked(self, prompt: str) -> str:
        """Return the prompt as the policy is asked."""
        return prompt if prompt.endswith(self.ending) else prompt + self.ending

    def whole(self, prompt: str, *, greedy: bool = False) -> Text:
        """Return the space of whole completions."""
        return Text(
            self.asked(prompt), self.policy, self.answer_of, max_tokens=self.max_tokens, max_steps=self.max_steps,
            temperature=0.0 if greedy else self.temperature, top_p=self.top_p, min_p=self.min_p,
        )  # fmt: skip

    def steps(self, prompt: str) -> Text:
        """Return the space of step after step; a step is asked for in pieces of at most a quarter of the path."""
        return Text(
            self.asked(prompt), self.policy, self.answer_of, step=self.step, max_tokens=self.max_tokens,
            max_steps=self.max_steps,
            step_tokens=max(16, self.max_tokens // 4), at_least=None, temperature=self.temperature, top_p=self.top_p,
            min_p=self.min_p,
        )  # fmt: skip

    def judge(self, *, aggregate: Aggregate = "last") -> ProcessReward:
        """Return the reward model as a verifier. Raises InvalidInput if there is none."""
        if self.reward is None:
            raise InvalidInput(
                f"this method needs a reward model beside {self.policy!r}; give one (reward=..., --verifier), "
                "or use a method that does without: greedy, majority, adaptive_consistency, first_finish"
            )
        return ProcessReward(self.reward, aggregate, self.step)


def pace(text: Text, judge: ProcessReward | None = None) -> Pace:
    """Return what one more answer of a length costs: its tokens, and reading it once by the reward model."""
    prompt = Prefix(text.prompt)

    async def price(tokens: int) -> Cost:
        cost = await text.price(tokens)
        if judge is None:
            return cost
        calls, attended = cost.total("calls"), cost.total("attended")
        return cost + await judge.price(prompt, tokens, steps=calls, attended=attended)

    return Pace(length=lambda state: state.tokens, longest=text.max_tokens, price=price)


Method = Callable[[Sequence[State]], Awaitable[State]]
"""The rest of a recipe: what to do, given the finished states that are there already."""


@dataclass(frozen=True, slots=True)
class Solver:
    """A method with every part filled in: `solver(problem, seed=1)` is the coroutine that a runtime drives.

    needs: capabilities, checked before anything is spent. answer: reads the canonical answer off a state; text: what
    was written. oracle: whether a part was built from the reference answer.
    """

    name: str
    needs: frozenset[str]
    run: Callable[..., Coroutine[Any, Any, State]]
    answer: Callable[[State], Answer | None]
    text: Callable[[State], str] = lambda state: state.text
    oracle: bool = False

    def __call__(self, problem: Problem, *, seed: int) -> Coroutine[Any, Any, State]:
        return self.run(problem, seed=seed)


def solver(
    name: str, models: Models, method: Callable[[Problem, Sequence[State], int], Awaitable[State]], *,
    needs: frozenset[str], planned: bool,
) -> Solver:  # fmt: skip
    """Return the Solver of `method(problem, seen, seed)`, made sure of an answer.

    planned: whether the method asks for as much as the budget pays for. Then a greedy answer comes first and takes part
    (`opening`); else one is set aside, and spent only if the method ends without any (`finishing`).
    """

    def answer(state: State) -> Answer | None:
        return models.answer_of(state.text)

    async def run(problem: Problem, *, seed: int) -> State:
        text = models.whole(problem.prompt, greedy=True)

        def greedy() -> Coroutine[Any, Any, State]:
            return once(text, seed=fold(seed, "greedy"))

        def work(seen: Sequence[State]) -> Awaitable[State]:
            return method(problem, seen, fold(seed, "method"))

        if planned:
            return await opening(work, greedy, answer=answer)
        return await finishing(lambda: work([]), greedy, reserve=await text.price(), answer=answer)

    run.__name__ = run.__qualname__ = name
    return Solver(name, needs, run, answer)


def stepwise(name: str, models: Models, rule: Rule, *, width: int | None, choose: str, aggregate: Aggregate) -> Solver:
    """Return the step-wise search that allocates its widths by `rule`: what beam, DVTS, REBASE and particles share."""
    judge, pick = models.judge(aggregate=aggregate), choice_named(choose)

    def method(problem: Problem, seen: Sequence[State], seed: int) -> Awaitable[State]:
        text = models.steps(problem.prompt)
        return search(
            text, judge, rule=rule, choose=pick, width=width, depth=models.max_steps, pace=pace(text, judge),
            seen=seen, seed=seed,
        )  # fmt: skip

    return solver(name, models, method, needs=STEPWISE, planned=width is None)
