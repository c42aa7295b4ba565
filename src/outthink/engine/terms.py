"""What the engine can serve: checked before anything is spent."""

from __future__ import annotations

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.request import Sample, Score


def limit(request: Sample | Score, *, length: int, context: int, made_for: int, writes: bool, judges: bool) -> int:
    """Return the most tokens that `request`, whose prefix has `length` tokens, can generate (`Score`: 0).

    Raises Unsupported for what this kind of model does not do, InvalidInput for settings that mean nothing and for
    prefixes that are empty or too long for `context`.  made_for: the context that the model could have with
    more memory.  writes: it continues texts; judges: it gives rewards.
    """
    if isinstance(request, Score):
        _check_score(request, writes, judges)
    elif isinstance(request, Sample):
        _check_sample(request, writes)
    else:
        raise Unsupported(f"the engine serves Sample and Score, not {type(request).__name__}")
    if length == 0:
        raise InvalidInput("the prompt is empty; there must be at least one token to continue or to judge")
    if isinstance(request, Score):
        if length > context:
            raise InvalidInput(f"{length} tokens to score, but the context is {context}; shorten the text")
        return 0
    if length >= context:
        more = (
            "" if made_for <= context else f", or give the engine a longer context (kv_bytes: up to {made_for} tokens)"
        )
        raise InvalidInput(
            f"the prompt has {length} tokens, but prompt and text together have room for {context}; "
            f"shorten the prompt{more}"
        )
    return min(context if request.max_tokens is None else request.max_tokens, context - length)


def _check_score(request: Score, writes: bool, judges: bool) -> None:
    if not (judges if request.of == "reward" else writes):
        has = "rewards, not log-probabilities" if judges else "log-probabilities, not rewards"
        raise Unsupported(f"this model gives {has} (Score of {request.of!r})")
    if request.step is not None and (request.of == "logprob" or not request.step):
        raise InvalidInput(f"step {request.step!r}: a delimiter of one or more characters, for rewards only")


def _check_sample(request: Sample, writes: bool) -> None:
    if not writes:
        raise Unsupported("this model gives rewards, it cannot continue a text; ask a language model")
    if not (0 <= request.temperature < float("inf") and 0 < request.top_p <= 1 and 0 <= request.min_p <= 1):
        raise InvalidInput(
            f"temperature {request.temperature}, top_p {request.top_p}, min_p {request.min_p}: "
            "temperature is 0 or more, top_p above 0 up to 1, min_p from 0 to 1"
        )
    if "" in request.stop:
        raise InvalidInput("a stop string is empty; every text ends with it, so leave it out")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise InvalidInput(f"max_tokens={request.max_tokens}; it is 1 or more, or None for what the context holds")
