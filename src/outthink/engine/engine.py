"""The engine: takes requests at any time, works a step at a time, and says what has happened.

    submit -> waiting -> Prefill (tokens of shared paths) -> Rows (a branch each) -> Decoder -> Finished
                                                          -> scored                         -> Finished

A step puts one batch through the model: the last token of every row, and as many missing tokens of waiting paths as
fit beside them (Sarathi: Agrawal et al. 2024).  Then every row draws a token, those that have just been let in too.
Not thread-safe: one thread submits, cancels and steps (`outthink.models.threaded` puts an engine in a thread).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample, Score
from outthink.core.seeds import fold
from outthink.engine.ahead import Speculation
from outthink.engine.checkpoint import load_checkpoint
from outthink.engine.config import Config
from outthink.engine.decoder import Decoder
from outthink.engine.endings import Endings
from outthink.engine.forest import Forest
from outthink.engine.jobs import Event, Finished, Job, Processor
from outthink.engine.names import Names
from outthink.engine.node import Usage
from outthink.engine.pages import Pages
from outthink.engine.policies import POLICIES
from outthink.engine.rows import Rows
from outthink.engine.scheduler import Scheduler
from outthink.engine.settings import PINNED, Model, Settings
from outthink.engine.speculative import Checkpoint, Drafter
from outthink.engine.stops import Stops, StopTables
from outthink.engine.terms import limit
from outthink.engine.watch import Watch

_LOOSE = 16  # one page in so many stays, while there is room, with what nobody can name any more


class Engine:
    """A model of one of the families in `config.ARCHITECTURES`, ready to continue and to score prefixes.

    Args:
      draft: a checkpoint (config, weights, tokenizer) of a smaller model with the same tokens, which proposes up to
        `lookahead` tokens at a time; texts are distributed as without it.  It computes in the same dtype, and has
        memory of its own, for as many tokens as `kv_bytes`.
      value_head: weight [hidden_size] and bias [1] of a reward beside the logits, of the same forward: what is drawn is
        judged on the way, and `Score(of="reward")` of a draft then computes its last token at most.
      options: see `Settings`.
    """

    def __init__(
        self, config: Config, weights: Mapping[str, Tensor], tokenizer: Tokenizer, *, draft: Checkpoint | None = None,
        value_head: tuple[Tensor, Tensor] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._settings = Settings(**options)
        self._model = Model.of(config, weights, tokenizer, settings=self._settings, draft=draft, value_head=value_head)
        self._prepare()

    def _prepare(self) -> None:
        """Make what is this engine's alone: memory, rows, and what is on its way."""
        model, settings = self._model, self._settings
        self.config, self.context, self.rows = model.config, model.context, settings.rows
        self.vocabulary, self.links, self.runner = model.vocabulary, model.links, model.runner
        config, kv, count = model.config, model.config.num_key_value_heads, model.pages
        share = settings.share and not settings.deterministic
        pages = Pages(
            config.num_hidden_layers, kv_heads=kv, head_dim=self.runner.width, count=count, dtype=self.runner.dtype,
            device=self.runner.device,
        )  # fmt: skip
        self.forest = Forest(pages, pinned=PINNED, loose=count // _LOOSE)
        self.names = Names(self.forest, self.links)
        stops = Stops(self.vocabulary)
        tables = StopTables(stops, size=self.vocabulary.size)
        group = config.num_attention_heads // kv
        self._rows = Rows(
            self.forest,
            tables,
            rows=self.rows,
            context=self.context,
            group=group,
            share=share,
            judges=self.runner.judges,
        )
        self._drafter: Drafter | None = None
        if model.draft is not None:
            self._drafter = Drafter.beside(
                self._rows, model.draft, count=count, lookahead=settings.lookahead, share=share
            )
        decoder = Decoder(
            self.runner, self.vocabulary, rows=self._rows, stops=stops, tables=tables, ends=config.eos_token_ids
        )
        self._scheduler = Scheduler(
            self.runner, self.forest, rows=self._rows, decoder=decoder, step_tokens=settings.step_tokens,
            endings=Endings(self.forest, self.names, self.vocabulary), whole=0 if settings.mixed else self.context,
            drafter=self._drafter, policy=POLICIES[settings.policy],
        )  # fmt: skip
        self._jobs: dict[Hashable, Job] = {}
        self._cancelled: dict[Hashable, None] = {}
        self._aside: list[Event] = []
        self._number = 0

    @classmethod
    def load(cls, folder: str | Path, **options: object) -> Engine:
        """Return an engine for the checkpoint in `folder`; options are those of the class, `draft` a folder too."""
        if isinstance(options.get("draft"), str | Path):
            options["draft"] = load_checkpoint(options["draft"])  # type: ignore[arg-type]
        return cls(*load_checkpoint(folder), **options)  # type: ignore[arg-type]

    def twin(self) -> Engine:
        """Return an engine of the same options with memory of its own, over the same weights: a thread each."""
        other = copy(self)
        other._prepare()
        return other

    def __len__(self) -> int:
        """Return the number of requests that have not finished."""
        return len(self._jobs)

    @property
    def paused(self) -> int:
        """How many requests wait for `resume`."""
        return len(self._scheduler.paused)

    @property
    def speculation(self) -> Speculation | None:
        """What drafting has done so far; None without a draft model."""
        return None if self._drafter is None else self._drafter.counters

    @property
    def computed(self) -> int:
        """How many tokens were put through the model so far."""
        return self._scheduler.computed

    def usage(self) -> Usage:
        """Return what keys and values take now."""
        return self.forest.usage()

    def submit(
        self,
        key: Hashable,
        request: Sample | Score,
        *,
        priority: float = 0.0,
        owner: Hashable = None,
        allowed: Callable[[], int] | None = None,
        watched: Callable[[], bool] | None = None,
        processor: Processor | None = None,
        top: int = 0,
    ) -> None:
        """Take `request`; a `Finished` with this key will come from some step.

        Args:
          priority: for the policy "priority" and for what stays in memory; higher is better.
          owner: whose it is; `Finished.pages` counts for all requests of an owner together.
          allowed: how many tokens it may draw now; asked when it has drawn what it was allowed.  A request that may
            draw no more reports `Waits` and waits for `resume`.
          watched: whether somebody wants to read along; then its text comes in `Piece`s.
          processor: changes the logits before each draw; one that raises fails its request.
          top: tell the likeliest so many tokens at every place (`Finished.top`).

        Raises InvalidInput or Unsupported for what cannot be served, and for a key that is in use.
        """
        if key in self._jobs:
            raise InvalidInput(f"key {key!r} belongs to a request that has not finished; give every request its own")
        most = self.limit(request)
        self.names.watch(request.prefix)
        link = self.links.of(request.prefix)
        job = Job(key, request, link, self.names.node(link), self._number, most, priority, owner, allowed, watched)
        job.processor, job.top = processor, top
        self._number += 1
        self._jobs[key] = job
        if priority:
            self.forest.prioritise(job.node, priority)
        if isinstance(request, Sample) and request.monitor is not None:
            try:
                job.watch = Watch(request.monitor, self.vocabulary.encode)
            except Exception as error:  # a rule that somebody else wrote: its request fails, with the next step
                job.error = error
                self._cancelled[key] = None
        self._scheduler.add(job)

    def cancel(self, key: Hashable) -> None:
        """Ask for the end of a request; its `Finished` (without a reply) comes from the next step.

        Does nothing if the key is not in use: a request may finish just before it is cancelled.
        """
        if key in self._jobs:
            self._cancelled[key] = None

    def resume(self, key: Hashable, *, most: int | None = None) -> None:
        """Let a request that waits go on; `most`: tokens it may draw in all, if less than it asked for.

        If it has drawn that many already, it finishes with the next step ("length").  Raises InvalidInput for one that
        does not wait.
        """
        job = self._jobs.get(key)
        if job is None or not self._scheduler.waits(job):
            raise InvalidInput(f"the request of key {key!r} does not wait; resume what has reported Waits, once")
        job.limit = job.limit if most is None else min(most, job.limit)
        self._scheduler.resume(job)

    def limit(self, request: Sample | Score) -> int:
        """Return the most tokens that `request` can generate; raise InvalidInput or Unsupported if none."""
        return limit(
            request,
            length=self.links.of(request.prefix).end,
            context=self.context,
            made_for=self.config.max_position_embeddings,
            writes=not self.config.is_reward_model,
            judges=self.runner.judges,
        )

    def step(self) -> list[Event]:
        """Work for one step; return what happened, in no promised order. Without requests, returns at once."""
        self.names.tick()
        self.forest.tick()
        events, self._aside = self._aside, []
        new: list[Event] = [self._scheduler.drop(self._jobs[key]) for key in self._cancelled if key in self._jobs]
        self._cancelled.clear()
        new += self._scheduler.step()
        for event in new:
            if isinstance(event, Finished):
                del self._jobs[event.key]
        return events + new

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        max_tokens: int = 128,
        temperature: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[str]]:
        """Return `n` continuations of each prompt.

        Draw j of prompt i has the seed fold(seed, i, j).  Of no prompts returns [].  Other requests go on meanwhile;
        what happens to them comes from the next `step`.  Raises what `submit` raises, or why one of the draws failed;
        then nothing of them is left.
        """
        mine: dict[Hashable, str] = {}
        whose, others = object(), list[Event]()
        asked: dict[Hashable, Sample] = {
            (whose, i, j): Sample(prefix, "", fold(seed, i, j), max_tokens, temperature=temperature, stop=tuple(stop))
            for i, prefix in enumerate(map(Prefix, prompts))
            for j in range(n)
        }
        try:
            for key, request in asked.items():
                self.submit(key, request)
            while len(mine) < len(asked):
                events = self.step()
                others += [event for event in events if event.key not in asked]
                for done in (event for event in events if event.key in asked and isinstance(event, Finished)):
                    if done.error is not None:
                        raise done.error
                    assert isinstance(done.reply, Draft)
                    mine[done.key] = done.reply.text
        finally:
            left = [key for key in asked if key in self._jobs]
            for key in left:
                self.cancel(key)
            if left:
                others += [event for event in self.step() if event.key not in asked]
            self._aside += others
        return [[mine[whose, i, j] for j in range(n)] for i in range(len(prompts))]
