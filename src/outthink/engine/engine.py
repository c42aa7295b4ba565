"""The engine: takes requests at any time, works a step at a time, and hands back what has finished.

    submit -> waiting -> Filler (prefill into the Store) -> Rows (decoding) -> Finished
                                                         -> scored            -> Finished

One step fills a bounded number of prompt tokens, admits what is ready to free rows, and draws one token in every row.
Not thread-safe: one thread submits, cancels and steps (`outthink.models.threaded` puts an engine in a thread).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample, Score
from outthink.core.seeds import fold
from outthink.engine.cache import token_bytes
from outthink.engine.checkpoint import CheckpointError, Config, load_checkpoint
from outthink.engine.filler import Filler
from outthink.engine.jobs import Finished, Job
from outthink.engine.links import Links
from outthink.engine.probe import steady
from outthink.engine.rows import Ended, Rows
from outthink.engine.runner import Runner
from outthink.engine.scoring import scored
from outthink.engine.store import Node, Store
from outthink.engine.terms import limit
from outthink.engine.vocabulary import Vocabulary
from outthink.engine.watch import Watch

_FILL_ROWS = 32
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Engine:
    """A Llama-format model, ready to continue and to score prefixes.

    Args:
      deterministic: the same request gives the same bits whatever else is in the batch, however its prefix came to be
        held.  Without it the text of a seed may differ where rounding (about 1e-6 in a logit) tips a draw: products are
        computed by other kernels for other numbers of rows.  Raises Unsupported where this machine's kernels will not.
      dtype: "float32", or "bfloat16" for weights and cache (faster where the CPU has it; about 1e-2 in a logit).
      kv_bytes: memory for keys and values.  Half is for rows, of which there are as many as fit, at most `rows`; the
        rest is for prefixes to come back to.
      context: longest prefix and draft together, at most what the model was made for.
      fill_tokens: prompt tokens computed in one step beside decoding.
    """

    def __init__(
        self,
        config: Config,
        weights: dict[str, Tensor],
        tokenizer: Tokenizer,
        *,
        deterministic: bool = False,
        dtype: str = "float32",
        kv_bytes: int = 1 << 30,
        rows: int = 256,
        context: int | None = None,
        fill_tokens: int = 2048,
    ) -> None:
        if dtype not in _TYPES:
            raise InvalidInput(f"dtype {dtype!r}: the engine computes in {' or '.join(_TYPES)}")
        if deterministic and dtype != "float32":
            raise Unsupported("deterministic mode computes in float32; leave dtype out")
        broken = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
        if broken:
            raise CheckpointError(f"weights that are not numbers: {', '.join(broken[:3])}; train or copy it again")
        kind = _TYPES[dtype]
        most = config.max_position_embeddings
        self.config, self.context = config, min(context or most, most)
        row_bytes = token_bytes(config, kind) * self.context
        self.rows = max(1, min(rows, kv_bytes // 2 // row_bytes))
        fill_rows = max(1, min(_FILL_ROWS, kv_bytes // 8 // row_bytes))
        self.vocabulary = Vocabulary(tokenizer, size=config.vocab_size)
        self.links = Links(self.vocabulary)
        self.runner = Runner(config, weights, context=self.context, dtype=kind, deterministic=deterministic)
        if deterministic and not steady(self.runner, context=self.context):
            raise Unsupported(
                "deterministic mode: on this machine a token's bits depend on what is computed beside "
                "it; load the engine without it (texts of a seed may then differ by rounding)"
            )
        self.store = Store(config, dtype=kind, limit=max(row_bytes, kv_bytes - (self.rows + fill_rows) * row_bytes))
        self._filler = Filler(self.runner, self.store, rows=fill_rows, context=self.context, tokens=fill_tokens)
        self._decoder = Rows(
            self.runner,
            self.vocabulary,
            rows=1 if config.is_reward_model else self.rows,
            context=self.context,
            end=config.eos_token_id,
        )
        self._jobs: dict[Hashable, Job] = {}
        self._samples: dict[Hashable, Job] = {}
        self._scores: dict[Hashable, Job] = {}
        self._cancelled: list[Hashable] = []
        self._aside: list[Finished] = []

    @classmethod
    def load(cls, folder: str | Path, **options: object) -> Engine:
        """Return an engine for the checkpoint in `folder`; options are those of the class."""
        return cls(*load_checkpoint(folder), **options)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Return the number of requests that have not finished."""
        return len(self._jobs)

    def submit(self, key: Hashable, request: Sample | Score) -> None:
        """Take `request`; a `Finished` with this key will come from some step.

        Raises InvalidInput or Unsupported for what cannot be served, and for a key that is in use.
        """
        if key in self._jobs:
            raise InvalidInput(f"key {key!r} belongs to a request that has not finished; give every request its own")
        most = self.limit(request)
        link = self.links.of(request.prefix)
        job = Job(key, request, link, link.path(), most)
        if isinstance(request, Sample) and request.monitor is not None:
            job.watch = Watch(request.monitor, self.vocabulary.encode)
        self.store.watch(request.prefix)
        self._jobs[key] = job
        (self._samples if isinstance(request, Sample) else self._scores)[key] = job

    def cancel(self, key: Hashable) -> None:
        """Ask for the end of a request; its `Finished` (without a reply) comes from the next step.

        Does nothing if the key is not in use: a request may finish just before it is cancelled.
        """
        if key in self._jobs:
            self._cancelled.append(key)

    def limit(self, request: Sample | Score) -> int:
        """Return the most tokens that `request` can generate; raise InvalidInput or Unsupported if none."""
        return limit(
            request,
            length=self.links.of(request.prefix).end,
            context=self.context,
            is_reward_model=self.config.is_reward_model,
        )

    def step(self) -> list[Finished]:
        """Work for one step; return what has finished, in no promised order. Without requests, returns at once."""
        self.store.tick()
        finished, self._aside = self._aside, []
        finished += self._drop_cancelled()
        if self._samples and self._decoder.free:
            waiting = list(islice(self._samples.values(), self._decoder.free))
            self._filler.fill(waiting)
            self._admit(waiting)
        if self._scores:
            finished += self._score(list(islice(self._scores.values(), 2 * self.rows)))
        return finished + [self._finish(ended) for ended in self._decoder.step()]

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
        those that finish come from the next `step`.
        """
        mine: dict[Hashable, str] = {}
        asked = {("generate", i, j) for i in range(len(prompts)) for j in range(n)}
        for i, prompt in enumerate(prompts):
            prefix = Prefix(prompt)
            for j in range(n):
                self.submit(
                    ("generate", i, j),
                    Sample(prefix, "", fold(seed, i, j), max_tokens, temperature=temperature, stop=tuple(stop)),
                )
        others: list[Finished] = []
        while len(mine) < n * len(prompts):
            for done in self.step():
                if isinstance(done.reply, Draft) and done.key in asked:
                    mine[done.key] = done.reply.text
                else:
                    others.append(done)
        self._aside += others
        return [[mine["generate", i, j] for j in range(n)] for i in range(len(prompts))]

    def _drop_cancelled(self) -> list[Finished]:
        finished = []
        for key in dict.fromkeys(self._cancelled):
            job = self._jobs.pop(key, None)
            if job is not None:
                if job.row >= 0:
                    job.generated = self._decoder.stop(job)
                self._samples.pop(key, None)
                self._scores.pop(key, None)
                finished.append(Finished(key, None, job.link.end, job.computed, job.generated))
        self._cancelled.clear()
        return finished

    def _admit(self, waiting: list[Job]) -> None:
        for _, group in groupby(waiting, key=lambda job: job.link.digest):
            jobs = list(group)
            path = self.store.path(jobs[0].path)
            if all(node.complete for node in path):
                self._decoder.admit(jobs, path)
                for job in jobs:
                    del self._samples[job.key]

    def _score(self, waiting: list[Job]) -> list[Finished]:
        self._filler.fill(waiting, values=True)
        finished = []
        for job in waiting:
            path = self.store.path(job.path)
            if all(node.complete for node in path) and path[-1].values is not None:
                reply = scored(job, path, self.vocabulary)
                finished.append(Finished(job.key, reply, job.link.end, job.computed))
                del self._jobs[job.key], self._scores[job.key]
        return finished

    def _finish(self, ended: Ended) -> Finished:
        job, request = ended.job, ended.job.request
        assert isinstance(request, Sample)
        del self._jobs[job.key]
        if job.error is not None:
            return Finished(job.key, None, job.link.end, job.computed, job.generated, error=job.error)
        text = self.vocabulary.text(ended.tokens)
        prefix = request.prefix.extend(text, tokens=ended.tokens, vocabulary=self.vocabulary.digest)
        if ended.tokens:
            values = torch.tensor(ended.logprobs) if ended.logprobs else None
            owed = max(len(ended.tokens) - ended.ready, int(ended.hidden is None))
            self.store.add(
                prefix.digest,
                Node(ended.tokens, ended.ready, ended.block, hidden=ended.hidden, values=values, owed=owed),
            )
            self.store.watch(prefix)
        memory = job.watch.memory if job.watch is not None else None
        reply = Draft(
            text,
            ended.finish,  # type: ignore[arg-type]
            prefix,
            ended.tokens,
            ended.stop,
            ended.logprobs,
            memory=memory,
        )
        hidden = torch.stack(job.hidden)[: len(ended.tokens)] if request.hidden and job.hidden else None
        return Finished(job.key, reply, job.link.end, job.computed, job.generated, hidden)
