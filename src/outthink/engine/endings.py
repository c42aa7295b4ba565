"""How a request ends: what is told to who asked, and what of its work stays in the forest."""

from __future__ import annotations

import numpy as np
import torch

from outthink.core.request import Draft, Sample
from outthink.engine.decoder import Ended
from outthink.engine.forest import Forest
from outthink.engine.jobs import Finished, Job
from outthink.engine.names import Names
from outthink.engine.node import Branch, Node
from outthink.engine.rows import Rows
from outthink.engine.scoring import scored
from outthink.engine.vocabulary import Vocabulary


class Endings:
    def __init__(self, forest: Forest, names: Names, vocabulary: Vocabulary) -> None:
        self._forest, self._names, self._vocabulary = forest, names, vocabulary

    def scored(self, job: Job) -> Finished:
        reply = scored(job, self._vocabulary)
        self._let_go(job)
        return Finished(job.key, reply, job.link.end, job.computed, pages=len(job.node.path()))

    def cancelled(self, job: Job) -> Finished:
        """Return the end of a job that has no row (any more)."""
        self._let_go(job)
        return Finished(job.key, None, job.link.end, job.computed, job.generated, job.pages, error=job.error)

    def at_rest(self, job: Job) -> Finished:
        """Return the end ("length") of a job that has no row: it was paused and gets no more."""
        node = job.node
        if node.parent is None:
            node = self._forest.path((*job.link.whole(), *job.rest))[-1]
        done = self._draft(job, node, "length", None, tuple(job.rest), job.logprobs)
        self._let_go(job)
        return done

    def drawn(self, job: Job, branch: Branch, ended: Ended, rows: Rows) -> Finished:
        """Return the end of a job that had this row, whose branch becomes part of the forest."""
        self._let_go(job)
        if job.error is not None:
            self._forest.release_branch(branch)
            return self.cancelled(job)
        tokens = rows.history[ended.row, : ended.kept].tolist()
        known = len(job.rest)  # of its tokens, these are behind the fork already
        if ended.kept < known:
            self._forest.release_branch(branch)
            node = self._forest.path((*job.link.whole(), *tokens))[-1]
        else:
            ready = max(branch.start, job.link.end + ended.computed)
            node = self._forest.publish(branch, tuple(tokens[known:]), ready=ready)[-1]
        if rows.rewards is not None:
            _remember(node, "reward", rows.rewards[ended.row, : ended.computed], first=job.link.end)
        if ended.hidden is not None and node.complete:
            node.ends[len(node.tokens)] = ended.hidden.clone()
        return self._draft(
            job, node, ended.finish, ended.stop, tuple(tokens), rows.logprobs[ended.row, : ended.kept].tolist()
        )

    def _draft(
        self, job: Job, node: Node, finish: str, stop: str | None, tokens: tuple[int, ...], logprobs: list[float]
    ) -> Finished:
        request = job.request
        assert isinstance(request, Sample)
        text = self._vocabulary.text(tokens)
        prefix = request.prefix.extend(text, tokens=tokens, vocabulary=self._vocabulary.digest)
        self._names.watch(prefix, node=node)
        if job.priority:
            self._forest.prioritise(node, job.priority)
        if request.logprobs:
            _remember(node, "logprob", np.array(logprobs, dtype=np.float32), first=job.link.end)
        reply = Draft(
            text,
            finish,  # type: ignore[arg-type]
            prefix,
            tokens,
            stop,
            tuple(logprobs) if request.logprobs else None,
            memory=job.watch.memory if job.watch is not None else None,
        )
        hidden = torch.stack(job.hidden)[: len(tokens)] if request.hidden and job.hidden else None
        some = job.tops[: len(tokens)]
        top = (torch.stack([ids for ids, _ in some]), torch.stack([values for _, values in some])) if some else None
        reading = job.watched is not None and job.watched()
        rest = self._vocabulary.text(tokens[job.said :]) if reading else ""
        return Finished(
            job.key, reply, job.link.end, job.computed, job.generated, job.pages, hidden, top=top, rest=rest
        )

    def _let_go(self, job: Job) -> None:
        if job.held:
            self._forest.release(job.node)
            job.held = False


def _remember(node: Node | None, kind: str, values: np.ndarray, *, first: int) -> None:
    """Note values of the tokens from position `first` on, in the nodes of the path to `node`."""
    while node is not None and node.parent is not None and node.end > first:
        begin = max(first, node.start)
        node.note(kind, values[begin - first :], first=begin - node.start)
        node = node.parent
