"""From a request to its draft: what cannot be asked, and following the answer to its end or to where it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Literal

from ...core.errors import Unsupported
from ...core.monitor import Force, Halt
from ...core.request import Draft, Sample
from .abilities import Abilities
from .answer import Answer
from .ending import cut_logprobs, ending, first_stop
from .failures import Broken, Place
from .wire import Piece

Finish = Literal["end", "stop", "length", "monitor"]


def check(request: Sample, can: Abilities, *, place: Place) -> None:
    """Raise Unsupported if the server cannot do what `request` asks for, naming what can."""
    lacks = {
        "hidden states": (request.hidden, "use the engine (engine/PATH)"),
        "log-probabilities": (request.logprobs and not can.logprobs, "use vLLM, llama.cpp or the engine"),
        "streaming, which a Monitor needs": (
            request.monitor is not None and not can.stream, "use a server that streams and counts, or the engine"
        ),
        "min_p": (request.min_p > 0 and not can.min_p, "use top_p, or vLLM, llama.cpp or the engine"),
        "a choice of temperature": (
            request.temperature != 1 and "temperature" in can.refuses, "use temperature 1"
        ),
        "continuation of an answer": (
            can.api == "chat" and can.continues is None and bool(request.prefix.written),
            "step-wise methods need it: use api='completions' (base models), vLLM, SGLang, llama.cpp or the engine",
        ),
    }  # fmt: skip
    missing = [f"{what}; {instead}" for what, (lack, instead) in lacks.items() if lack]
    if missing:
        raise Unsupported(place.tell(f"{place.model} there has no {'. It has no '.join(missing)}."))


async def follow(
    pieces: AsyncIterator[Piece],
    *,
    request: Sample,
    answer: Answer,
    can: Abilities,
    place: Place,
    show: Callable[[str], None],
) -> Draft:
    """Return the draft that the answer of `pieces` is; `answer` holds what came, also when this raises.

    The Monitor sees the text of each chunk of the stream (as a rule one token) and the sum of its log-probabilities;
    `Halt.back` counts chunks. Nothing after a stop string reaches it. After a halt the connection is dropped; where
    the server ignores a stop string it is read to its end, which tells what it cost, unless `can.grace` is known.
    Raises Broken, and Unsupported for a Monitor that forces text.
    """
    monitor = request.monitor
    memory = monitor.start() if monitor is not None else None
    ends, over = [0], False
    try:
        async with aclosing(pieces) as items:  # type: ignore[type-var]
            async for item in items:
                answer.add(item, place=place)
                if not item.text or over:
                    continue
                hit = first_stop(answer.text, request.stop)
                end, over = (len(answer.text), False) if hit is None else (hit[0], True)
                text = answer.text[ends[-1] : end]
                ends.append(end)
                show(text)
                if monitor is not None:
                    chance = sum(value for _, value in item.logprobs) if item.logprobs else None
                    memory, action = monitor.step(memory, text, chance)
                    if isinstance(action, Force):
                        raise Unsupported("a Monitor forces text, which no server does; use the engine (engine/PATH)")
                    if isinstance(action, Halt):
                        end = ends[max(0, len(ends) - 1 - action.back)]
                        return _draft(request, answer, answer.text[:end], "monitor", place=place, memory=memory)
                if over and can.grace is not None and answer.reason is None:
                    break
            else:
                answer.ended = True
    except Broken:
        if answer.reason is None:
            raise  # else the text is whole: only the farewell is missing, and perhaps what it cost
    if not answer.choices:
        raise Broken(place.tell("an answer without choices"), retry=True)
    if answer.reason == "content_filter":
        raise Broken(place.tell("the server's content filter withheld the answer"), retry=False)
    how = ending(
        answer.text, reason=answer.reason, named=answer.named, names_stop=answer.names_stop, stop=request.stop, can=can
    )
    if len(how.text) > ends[-1]:
        show(how.text[ends[-1] :])  # the stop string that the server cut off
    return _draft(request, answer, how.text, how.finish, place=place, stop=how.stop, memory=memory)


def _draft(
    request: Sample,
    answer: Answer,
    text: str,
    finish: Finish,
    *,
    place: Place,
    stop: str | None = None,
    memory: object = None,
) -> Draft:
    chances = None
    if request.logprobs:
        if answer.logprobs is None:
            raise Broken(place.tell("the answer came without the log-probabilities asked for"), retry=False)
        chances = cut_logprobs(answer.logprobs, len(text))
    return Draft(text, finish, request.prefix.extend(text), stop=stop, logprobs=chances, memory=memory)
