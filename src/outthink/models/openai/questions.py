"""The questions of the probe: each asks something of a server and changes what is believed of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal, TypeVar

from ...core.cost import Cost
from .abilities import Abilities
from .answer import Answer
from .ending import first_stop
from .failures import Broken
from .usage import served
from .wire import CONTINUE

R = TypeVar("R")

PROMPT = "Write random words."
"""Short, because its length limits how well the overhead of the server's template is known; its answers vary."""

TOKENS = 16

Ask = Callable[[str, dict[str, Any]], Awaitable[Answer]]
"""(api, body) -> answer; raises Broken."""

OPTIONAL = ("logprobs", "stream_options", "seed", "temperature", "stream")
"""Fields of the first request that can be done without, in the order in which they are given up."""


class Questions:
    """What is believed (`can`), what asking took (`costs`), and what a user should know (`notes`)."""

    def __init__(self, ask: Ask, model: str, tokens: Callable[[str], int] | None) -> None:
        self.ask, self.model, self.tokens = ask, model, tokens
        self.can = Abilities()
        self.costs: list[Cost] = []
        self.notes: list[str] = []

    async def send(self, more: dict[str, Any]) -> Answer:
        can = self.can
        body: dict[str, Any] = {"model": self.model, can.limit: TOKENS, "temperature": 0.0}
        body |= {"messages": [{"role": "user", "content": PROMPT}]} if can.api == "chat" else {"prompt": PROMPT}
        if can.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body = {name: value for name, value in (body | more).items() if name not in can.refuses}
        try:
            answer = await self.ask(can.api, body)
        except Broken as broken:
            if broken.spent:
                self.costs.append(self.bound())
            raise
        self.costs.append(served(answer.usage, model=self.model, bound=self.bound(), text=answer.text)[0])
        return answer

    def bound(self) -> Cost:
        return Cost.of(self.model, calls=1, prompt=len(PROMPT) + TOKENS + self.can.overhead, output=TOKENS)

    async def begin(self, api: Literal["chat", "completions"]) -> Answer:
        """Ask the first question, with ever fewer optional fields, until the server takes it."""
        self.can = Abilities(api=api)
        while True:
            try:
                answer = await self.send({"logprobs": True if api == "chat" else 1, "seed": 1})
                break
            except Broken as broken:
                if broken.status not in (400, 422) or not self._give_up(broken.message):
                    raise
        if self.can.stream and not isinstance(answer.usage, dict):
            at_once = await self.send({"stream": False, "stream_options": None})
            if isinstance(at_once.usage, dict):
                self.can = replace(self.can, stream=False, refuses=self.can.refuses | {"stream_options"})
                self.notes.append("counts tokens only in answers that are not streamed: no streaming")
                answer.usage = at_once.usage
            else:
                self.notes.append("does not count tokens: every request is paid at its bound")
        elif answer.pieces < 2:
            self.can = replace(self.can, stream=False)
        self._overhead(answer.usage)
        self.can = replace(self.can, logprobs=bool(answer.text) and bool(answer.logprobs))
        if not answer.text:
            self.notes.append(f"gave no text within {TOKENS} tokens: nothing else could be found out")
        return answer

    def _give_up(self, message: str) -> bool:
        if "max_completion_tokens" in message and self.can.limit == "max_tokens":
            self.can = replace(self.can, limit="max_completion_tokens")
            return True
        rest = [name for name in OPTIONAL if name not in self.can.refuses]
        named = [name for name in rest if name in message][:1] or rest[:1]
        if named == ["stream"]:
            self.can = replace(self.can, stream=False)
        self.can = replace(self.can, refuses=self.can.refuses | set(named))
        return bool(named)

    def _overhead(self, usage: Any) -> None:
        count = _prompt(usage)
        if isinstance(count, int) and count > 0:
            # Of the tokens counted at least one is the prompt's; with a tokenizer, joints may differ by a few.
            over = count - 1 if self.tokens is None else max(0, count - self.tokens(PROMPT)) + 4
            self.can = replace(self.can, overhead=min(over, 8) if self.can.api == "completions" else over)

    async def stops(self, text: str) -> None:
        """Find out what becomes of a stop string."""
        pairs = [text[i : i + 2] for i in range(len(text) // 2, len(text) - 1)]
        stop = next((pair for pair in pairs if not pair.isspace() and text.find(pair) > 0), None)
        if stop is None:
            return
        at = text.find(stop)
        try:
            answer = await self.send({"stop": [stop], "include_stop_str_in_output": True})
            self.can = replace(self.can, include_stop=True)
        except Broken as broken:
            if broken.status not in (400, 422):
                raise
            answer = await self.send({"stop": [stop]})
        hit = first_stop(answer.text, [stop])
        if hit is None:
            fits = answer.text.rstrip() == text[:at].rstrip()
            self.can = replace(self.can, stop="strip" if fits or answer.named == stop else None)
        else:
            # A server may go on to the end of the token that the stop string ends in.
            self.can = replace(self.can, stop="keep" if len(answer.text) < len(text) else "ignore")
        if self.can.stop != "keep":
            self.can = replace(self.can, include_stop=False)
        if self.can.stop == "ignore":
            self.notes.append("ignores `stop`: texts are cut here, and what was generated is paid")

    async def seeds(self, greedy: str) -> None:
        """Find out whether seeds hold and whether `min_p` does anything."""
        if "temperature" in self.can.refuses:
            return
        draws = [self.send({"temperature": 1.0, "seed": seed}) for seed in (11, 11, 12)]
        one, again, other = [answer.text for answer in await together(*draws)]
        if not greedy:
            return
        holds = one == again != other and "seed" not in self.can.refuses
        self.can = replace(self.can, seed=holds, samples=not one == again == other == greedy)
        if not self.can.samples:
            self.notes.append("gave the greedy text for every seed at temperature 1: all samples may be the same")
            return
        try:
            strict = await self.send({"temperature": 1.0, "seed": 12, "min_p": 1.0})
        except Broken as broken:
            if broken.status not in (400, 422):
                raise
            self.can = replace(self.can, refuses=self.can.refuses | {"min_p"})
        else:
            self.can = replace(self.can, min_p=strict.text == greedy != other)

    async def bare(self, greedy: Answer) -> None:
        """Use `completions` if the chat template adds nothing (a base model): there every text can be continued."""
        chat = self.can
        self.can = replace(chat, api="completions")
        try:
            answer = await self.send({})
        except Broken as broken:
            if not broken.status:
                raise
            self.can = chat
            return
        if not answer.text or answer.text != greedy.text or _prompt(answer.usage) != _prompt(greedy.usage):
            self.can = chat
        else:
            self._overhead(answer.usage)

    async def continues(self, text: str) -> None:
        """Find out whether the last assistant message is continued: greedily it must go on as it did before."""
        if self.can.api != "chat" or len(text.strip()) < 4:
            return
        # Between two words if there are two: a server need not continue as before from the middle of a token.
        gaps = [
            i for i in range(1, len(text) - 3) if text[i].isspace() and text[:i].strip() and len(text[i:].strip()) > 2
        ]
        cut = min(gaps, key=lambda i: abs(3 * i - len(text)), default=len(text) // 2)
        rest = text[cut:].strip()
        talk = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text[:cut]}]
        for way, flags in (("flags", CONTINUE), ("plain", {})):
            try:
                answer = await self.send({"messages": talk, **flags})
            except Broken as broken:
                if broken.status not in (400, 422, 500, 501):
                    raise
                continue
            got = answer.text.strip()
            n = min(len(rest), len(got), 24)
            if n > 1 and got[:n] == rest[:n] != text.strip()[:n]:
                self.can = replace(self.can, continues="flags" if way == "flags" else "plain")
                return


async def together(*work: Coroutine[Any, Any, R]) -> list[R]:
    """Return what all of `work` returns; the first error is raised when everything has ended."""
    done = await asyncio.gather(*work, return_exceptions=True)
    failed = next((each for each in done if isinstance(each, BaseException)), None)
    if failed is not None:
        raise failed
    return [each for each in done if not isinstance(each, BaseException)]


def _prompt(usage: Any) -> Any:
    return usage.get("prompt_tokens") if isinstance(usage, dict) else None
