"""The wire format, as pure functions: a `Sample` to the JSON of a request, JSON of a server to what it says.

Two endpoints. `chat` turns the root of a prefix into a user message and what was written since into a last assistant
message for the server to continue; `completions` sends the text as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.request import Sample
from .abilities import Abilities

PATHS = {"chat": "/chat/completions", "completions": "/completions"}
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
"""How vLLM, SGLang and llama.cpp are asked to go on with the last assistant message."""

SEED_BITS = 31
"""Servers disagree about wider seeds (llama.cpp keeps 32 bits, others refuse more than a signed 32)."""


def body(request: Sample, *, model: str, can: Abilities, max_tokens: int) -> dict[str, Any]:
    """Return the JSON of `request` for a server that can do what `can` says; fields that it refuses are left out.

    Leaving out is only done where it changes nothing or the caller has checked (`Backend.bound`): a field at its
    default, `seed`, and `logprobs` that only a Monitor would like to see.
    """
    out: dict[str, Any] = {"model": model, can.limit: max_tokens}
    if can.api == "chat":
        root, written = request.prefix.chain()[0].piece, request.prefix.written
        out["messages"] = [{"role": "user", "content": root}]
        if written:
            out["messages"].append({"role": "assistant", "content": written})
            out |= CONTINUE if can.continues == "flags" else {}
    else:
        out["prompt"] = request.prefix.text
    out["temperature"] = request.temperature
    out["seed"] = request.seed & (2**SEED_BITS - 1)
    if request.top_p < 1:
        out["top_p"] = request.top_p
    if request.min_p > 0:
        out["min_p"] = request.min_p
    if request.stop:
        out["stop"] = list(request.stop)
        if can.include_stop:
            out["include_stop_str_in_output"] = True
    if request.logprobs or (request.monitor is not None and can.logprobs):
        out["logprobs"] = True if can.api == "chat" else 1
    if can.stream:
        out["stream"] = True
        out["stream_options"] = {"include_usage": True}
    return {name: value for name, value in out.items() if name not in can.refuses}


@dataclass(frozen=True, slots=True)
class Piece:
    """What one JSON document of a server says: a whole answer, or a chunk of a stream.

    logprobs: (text of the token, log-probability) for each token, None where there are none.
    names_stop: whether the server says which stop string it met; then `stop` is that string, or None for an end.
    choices: whether there was any choice (a last chunk with only `usage` has none).
    """

    text: str = ""
    reason: str | None = None
    stop: str | None = None
    names_stop: bool = False
    logprobs: tuple[tuple[str, float], ...] | None = None
    usage: Any = None
    error: str | None = None
    choices: bool = False


def piece(data: Any) -> Piece:
    """Return what the parsed JSON `data` says. Raises ValueError if it is no answer of this protocol."""
    if not isinstance(data, Mapping):
        raise ValueError(f"a JSON object was expected, not {type(data).__name__}")
    if data.get("error"):
        return Piece(error=error_text(data), usage=data.get("usage"))
    choices = data.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise ValueError(f"`choices` is {type(choices).__name__}, a list was expected")
    if not choices:
        return Piece(usage=data.get("usage"))
    choice = choices[0]
    if not isinstance(choice, Mapping):
        raise ValueError("`choices[0]` is no JSON object")
    message = choice.get("delta") or choice.get("message") or {}
    text = message.get("content") if "text" not in choice and isinstance(message, Mapping) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"the text is {type(text).__name__}, a string was expected")
    named = next((name for name in ("stop_reason", "matched_stop") if name in choice), None)
    stop = choice.get(named) if named else None
    return Piece(
        text=text or "",
        reason=choice.get("finish_reason"),
        stop=stop if isinstance(stop, str) else None,
        names_stop=named is not None,
        logprobs=_logprobs(choice.get("logprobs")),
        usage=data.get("usage"),
        choices=True,
    )


def _logprobs(data: Any) -> tuple[tuple[str, float], ...] | None:
    if not isinstance(data, Mapping):
        return None
    if isinstance(content := data.get("content"), list):
        rows = [(row.get("token"), row.get("logprob")) for row in content if isinstance(row, Mapping)]
    else:
        rows = list(zip(data.get("tokens") or (), data.get("token_logprobs") or (), strict=False))
    good = tuple((str(token), float(value)) for token, value in rows if isinstance(value, int | float))
    return good if len(good) == len(rows) and all(not math.isnan(value) for _, value in good) else None


def error_text(data: Any) -> str:
    """Return what a server's error document says, in whatever of the usual places it says it."""
    error = data.get("error", data) if isinstance(data, Mapping) else data
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or error.get("type") or error
    return " ".join(str(error).split())[:400]
