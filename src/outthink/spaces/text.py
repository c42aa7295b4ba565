"""Texts that a language model writes: whole completions, or one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.cost import Cost
from ..core.errors import InvalidInput
from ..core.refs import Prefix
from ..core.request import Draft, Sample
from ..core.seeds import fold
from ..core.verbs import bound, fitting
from ..core.verdict import Answer


@dataclass(frozen=True, slots=True)
class State:
    """What has been written so far. `tokens` and `steps` count what is below the prompt.

    finish: how the last draft ended ("end", "stop", "length", "monitor"), "" for the root.
    """

    prefix: Prefix
    done: bool = False
    tokens: int = 0
    steps: int = 0
    finish: str = ""

    @property
    def text(self) -> str:
        """What was written below the prompt."""
        return self.prefix.written


@dataclass(frozen=True, slots=True)
class Text:
    """The texts that `model` may write after `prompt`.

    answer_of: the canonical answer of a written text, None where it cannot be parsed.
    step: the string that ends a step (kept in the text); None: a child is a whole completion.
    max_tokens, max_steps: a path ends there. step_tokens: a request asks for at most so many (None: the whole rest);
      a step cut there goes on in the next one.
    at_least: what a request may be clipped to when the account is nearly empty; None: it may not.
    temperature, top_p, min_p: of the sampling; 0 is greedy.
    stop: more strings that end the text.
    """

    prompt: str
    model: str
    answer_of: Callable[[str], Answer | None]
    step: str | None = None
    max_tokens: int = 256
    max_steps: int = 40
    step_tokens: int | None = None
    at_least: int | None = 1
    temperature: float = 0.8
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    forks = True

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InvalidInput("the prompt is empty; there must be something to continue")
        if self.max_tokens < 1 or self.max_steps < 1 or (self.step_tokens is not None and self.step_tokens < 1):
            raise InvalidInput(
                f"max_tokens={self.max_tokens}, max_steps={self.max_steps}, step_tokens={self.step_tokens}: "
                "each is at least 1"
            )
        if self.step == "":
            raise InvalidInput("step is empty; it is the string that ends a step, or None for whole completions")

    async def root(self, seed: int) -> State:
        return State(Prefix(self.prompt))

    async def expand(self, state: State, n: int, seed: int) -> list[State]:
        """Return at most `n` continuations by one step (one completion), as many as the budget paid for.

        Raises OutOfBudget if it paid for none. A finished state has no continuation: [].
        """
        if state.done or n < 1:
            return []
        if n == 1:
            return [self._next(state, await self._sample(state, fold(seed, 0)))]
        drafts = await fitting([self._sample(state, fold(seed, i)) for i in range(n)])
        return [self._next(state, draft) for draft in drafts if draft is not None]

    def is_done(self, state: State) -> bool:
        return state.done

    def answer(self, state: State) -> Answer | None:
        return self.answer_of(state.prefix.written)

    async def price(self, tokens: int | None = None) -> Cost:
        """Return the bound of one more text of at most `tokens` tokens (None: max_tokens), from the root to its end.

        Of a text written in steps, the calls are those of steps as short as max_steps allow.
        """
        most = self.max_tokens if tokens is None else min(tokens, self.max_tokens)
        cost = await bound(self._sample(State(Prefix(self.prompt)), 0, most=most))
        if self.step is None:
            return cost
        more = -(-most * self.max_steps // self.max_tokens) - 1
        return cost + Cost.of(self.model, calls=more)

    def _sample(self, state: State, seed: int, *, most: int | None = None) -> Sample:
        rest = max(1, self.max_tokens - state.tokens)
        asked = most or (rest if self.step_tokens is None else min(rest, self.step_tokens))
        return Sample(
            state.prefix, self.model, seed, max_tokens=asked,
            at_least=None if self.at_least is None else min(self.at_least, asked), temperature=self.temperature,
            top_p=self.top_p, min_p=self.min_p, stop=self.stop + (() if self.step is None else (self.step,)),
            logprobs=self.logprobs,
        )  # fmt: skip

    def _next(self, state: State, draft: Draft) -> State:
        tokens = state.tokens + (len(draft.tokens) if draft.tokens is not None else _estimate(draft.text))
        steps = state.steps + 1
        done = self.step is None or draft.finish in ("end", "monitor") or draft.stop in self.stop or not draft.text
        done = done or tokens >= self.max_tokens or steps >= self.max_steps
        if not done and draft.finish == "stop":  # the line is complete, so an answer in it is too
            done = self.answer_of(draft.prefix.written) is not None
        return State(draft.prefix, done, tokens, steps, draft.finish)


def _estimate(text: str) -> int:
    """Return about how many tokens a text has where a server does not say; only the end of a path depends on it."""
    return max(1, len(text) // 3)
