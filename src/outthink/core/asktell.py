"""Any method as an ask/tell object: for job queues, other languages, or people in the loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from .backend import CAPABILITIES, Failure, Item, Settled
from .cost import Cost
from .errors import InvalidInput
from .request import Request, Sample
from .run import Run
from .runtime import Runtime

Bound = Callable[[Request[Any]], Cost]


def by_bytes(request: Request[Any]) -> Cost:
    """Return a bound that needs no tokenizer: no byte-level vocabulary makes more tokens than there are bytes."""
    prefix = getattr(request, "prefix", None)
    prompt = len(prefix.text.encode("utf-8", "replace")) if prefix is not None else 0
    if not isinstance(request, Sample):
        return Cost.of(request.model, calls=1, prompt=prompt)
    if request.max_tokens is None:
        raise InvalidInput(f"{request!r}: max_tokens is needed where the backend knows no context length")
    return Cost.of(request.model, calls=1, prompt=prompt, output=request.max_tokens)


class AskTell:
    """`ask()` what may run now, do it yourself, `tell()` how it went. The method is unchanged.

    models: the names that requests may use. bound: prices requests before they are handed out. Other
    options are those of `Runtime.start`. Replies may be told in any order, also (with its cost) what was cancelled
    in the meantime.
    """

    stepped = True
    capabilities = CAPABILITIES - {"prefix", "pause"}

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, models: Sequence[str], bound: Bound = by_bytes, **options: Any
    ) -> None:
        self._bound = bound
        self._asked: dict[int, tuple[Any, Request[Any]]] = {}
        self._told: list[Item] = []
        self._names = 0
        self._runtime = Runtime({model: self for model in models}, sleep=lambda _: None)
        self.run: Run = self._runtime.start(coro, **options)
        self._turn()

    def ask(self) -> Mapping[int, Request[Any]]:
        """Return what may run now, by key; asking again returns the same until it is told."""
        return {key: request for key, (_, request) in self._asked.items()}

    def tell(self, key: int, reply: Any, *, cost: Cost, failure: Failure | None = None) -> None:
        """Report the end of what was asked under `key`. Raises InvalidInput for a key that is not asked (any more)."""
        if key not in self._asked:
            raise InvalidInput(f"tell({key}): not asked, or told before; open keys: {sorted(self._asked)}")
        ticket, _ = self._asked.pop(key)
        self._told.append(Settled(ticket, reply, cost, failure))
        self._turn()

    @property
    def done(self) -> bool:
        return self.run.done

    def _turn(self) -> None:
        self._runtime.step()
        self._runtime.step()  # the first settles what was told, the second asks for what follows

    # -- the backend's side

    def bound(self, ticket: Any, request: Request[Any]) -> Cost:
        return self._bound(request)

    def room(self) -> int:
        return 1 << 30

    def submit(self, ticket: Any, request: Request[Any]) -> None:
        self._asked[self._names] = (ticket, request)
        self._names += 1

    def cancel(self, ticket: Any) -> None:
        pass

    def step(self) -> Sequence[Item]:
        told, self._told = self._told, []
        return told

    def attach(self, post: Callable[[Sequence[Item]], None]) -> None:
        pass

    def close(self) -> None:
        pass
