"""What a server can do: found by a probe, or said by whoever knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an OpenAI-compatible server can do with one model.

    api: "chat" puts the prompt into a user message; "completions" sends it as it is (base models).
    continues: how a last assistant message is continued. "flags": with vLLM's `continue_final_message`; "plain":
      without being asked; None: not at all, a chat can only be begun. `completions` always continues.
    stop: what is done with the matched stop string. "keep": it is in the text; "strip": it is cut off; "ignore":
      `stop` has no effect (we cut the text ourselves, and what was generated is paid for); None: not known yet.
    include_stop: `include_stop_str_in_output` makes the server keep it.
    samples: False if different seeds at temperature 1 gave the same text: every sample would be the same.
    stream: answers come in pieces. limit: the field that limits the output.
    refuses: fields that the server answers with an error; they are not sent.
    context: the longest prompt plus output, None if the server does not say.
    overhead: the most tokens that the server adds to the text of a prompt (chat template, first token).
    grace: tokens that the server may still generate after a client left. None: it may go on to `max_tokens`, so an
      answer that we abort is paid at its bound. With a number, what was seen plus this is paid.
    """

    api: Literal["chat", "completions"] = "chat"
    continues: Literal["flags", "plain"] | None = None
    stop: Literal["keep", "strip", "ignore"] | None = None
    include_stop: bool = False
    logprobs: bool = False
    seed: bool = False
    min_p: bool = False
    samples: bool = True
    stream: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    refuses: frozenset[str] = frozenset()
    context: int | None = None
    overhead: int = 256
    grace: int | None = None

    @property
    def capabilities(self) -> frozenset[str]:
        """Return the names of `core.backend.CAPABILITIES` that follow. `monitor` works on the chunks of a stream."""
        has = {
            "sample": True,
            "seed": self.seed,
            "stop": self.stop != "ignore",
            "logprobs": self.logprobs,
            "monitor": self.stream,
            "continue": self.api == "completions" or self.continues is not None,
        }
        return frozenset(name for name, yes in has.items() if yes)


PRESETS = {
    "vllm": Abilities(
        continues="flags", stop="keep", include_stop=True, logprobs=True, seed=True, min_p=True
    ),
    "vllm-completions": Abilities(
        api="completions", stop="keep", include_stop=True, logprobs=True, seed=True, min_p=True, overhead=8
    ),
    "openai": Abilities(stop="strip", logprobs=True, limit="max_completion_tokens"),
    "plain": Abilities(),
    "plain-completions": Abilities(api="completions", overhead=8),
}  # fmt: skip
"""Abilities to give instead of a probe, from the documentation of the servers. `plain` supposes nothing but text."""
