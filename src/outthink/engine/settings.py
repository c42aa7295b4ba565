"""What an engine is told when it is made, and the model that it and its twins share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer
from torch import Tensor

from outthink.core.errors import InvalidInput, Unsupported, unknown
from outthink.engine.config import Config
from outthink.engine.errors import CheckpointError
from outthink.engine.linear import KINDS
from outthink.engine.links import Links
from outthink.engine.pages import PAGE
from outthink.engine.policies import POLICIES
from outthink.engine.probe import steady
from outthink.engine.runner import Runner
from outthink.engine.size import KV_BYTES, planned
from outthink.engine.size import kv_bytes as token_bytes
from outthink.engine.speculative import Checkpoint, drafting
from outthink.engine.vocabulary import Vocabulary

PINNED = 0.2  # largest share of the pages that may be pinned
_FEWEST = 4  # pages; fewer could not hold a prompt beside the page that its first token is written to


@dataclass(frozen=True, slots=True)
class Settings:
    """
    deterministic: the same request gives the same bits whatever else is in the batch, however its prefix came to be
      held.  Without it the text of a seed may differ where rounding (about 1e-6 in a logit) tips a draw: products are
      computed by other kernels for other numbers of rows.  Raises Unsupported where this machine's kernels will not.
    dtype: "float32"; "bfloat16" for weights and cache (faster where the CPU has it; about 1e-2 in a logit); "int8",
      "int4": the same with the projections' weights in so many bits.
    kv_bytes: memory for keys and values, in pages of 16 tokens.
    rows: most requests that decode at once.
    context: longest prefix and draft together, at most what the model was made for; None: what fits into `kv_bytes`.
    step_tokens: most tokens put through the model in one step: prompts take what the rows leave of it.
    policy: who is served first among those that wait: one of `policies.POLICIES`.
    share: read the pages that rows have in common once for all of them; False only to measure what that gives.
    mixed: rows draw in every step, chunks of prompts go beside them; False, only to measure what that gives: prompts
      go first and whole, and rows wait for them.
    lookahead: most tokens that a draft model proposes at a time.
    """

    deterministic: bool = False
    dtype: str = "float32"
    kv_bytes: int = KV_BYTES
    rows: int = 256
    context: int | None = None
    step_tokens: int = 1024
    policy: str = "fcfs"
    share: bool = True
    mixed: bool = True
    lookahead: int = 4

    def __post_init__(self) -> None:
        if self.dtype not in KINDS:
            raise unknown("dtype", self.dtype, KINDS)
        if self.deterministic and self.dtype != "float32":
            raise Unsupported("deterministic mode computes in float32; leave dtype out")
        if self.policy not in POLICIES:
            raise unknown("policy", self.policy, POLICIES)
        if self.rows < 1 or self.step_tokens < 1:
            raise InvalidInput(f"rows={self.rows}, step_tokens={self.step_tokens}: both are 1 or more")


@dataclass(frozen=True, slots=True)
class Model:
    """Weights ready to run, with what is known of their texts; engines over the same one share it, a thread each.

    draft: the model that proposes, if there is one.  pages: how many pages of keys and values an engine has.
    context: longest text.
    """

    config: Config
    vocabulary: Vocabulary
    links: Links
    runner: Runner
    draft: Runner | None
    pages: int
    context: int

    @classmethod
    def of(
        cls, config: Config, weights: Mapping[str, Tensor], tokenizer: Tokenizer, *, settings: Settings,
        draft: Checkpoint | None = None, value_head: tuple[Tensor, Tensor] | None = None,
    ) -> Model:  # fmt: skip
        """Return the model that `settings` ask for; raise what `Engine` says it raises."""
        if value_head is not None and value_head[0].numel() != config.hidden_size:
            raise InvalidInput(
                f"a value head of {value_head[0].numel()} weights; this model's hidden states have {config.hidden_size}"
            )
        broken = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
        if broken:
            raise CheckpointError(f"weights that are not numbers: {', '.join(broken[:3])}; train or copy it again")
        kind, exact = settings.dtype, settings.deterministic
        count = max(_FEWEST, settings.kv_bytes // (PAGE * token_bytes(config, kind)))
        most = (count - int(PINNED * count) - 1) * PAGE
        if settings.context is not None:
            longest = min(settings.context, config.max_position_embeddings)
            planned(config, kind, branches=1, length=longest, have=most * token_bytes(config, kind))
        made_for = [one.max_position_embeddings for one in (config, *([draft[0]] if draft else []))]
        context = min([settings.context or most, most, *made_for])
        vocabulary = Vocabulary(tokenizer, size=config.vocab_size)
        runner = Runner(config, weights, context=context, kind=kind, deterministic=exact, value_head=value_head)
        other = None
        if draft is not None:
            other = drafting(draft, runner, vocabulary=vocabulary, context=context, lookahead=settings.lookahead)
        for one in (runner, other):
            if exact and one is not None and not (one.native and steady(one, context=context)):
                raise Unsupported(
                    "deterministic mode: on this machine a token's bits depend on what is computed beside it, or there "
                    "are no C kernels; load the engine without it (texts of a seed may then differ by rounding)"
                )
        return cls(config, vocabulary, Links(vocabulary), runner, other, count, context)
