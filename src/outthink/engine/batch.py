"""One step's batch: the last token of every going row, and chunks of prompts beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from outthink.engine.ahead import Ahead
from outthink.engine.faults import TooLarge, short_of_memory
from outthink.engine.levels import Plan
from outthink.engine.pages import PAGE, Pages
from outthink.engine.prefill import Chunk
from outthink.engine.rows import Rows
from outthink.engine.runner import Batch, Runner


def joined(
    rows: Rows, going: np.ndarray, chunks: Sequence[Chunk], *, device: torch.device, ahead: Ahead | None = None
) -> Batch:
    """Return the batch of `going` rows (in the order in which they share pages) and of `chunks`, in that order.

    Products take all of it at once; attention is a task per row, per level that rows share, and per chunk.

    ahead: proposals to the rows, all but the last of each of which stand behind the row's last token.
    """
    count = len(going)
    lengths = rows.length[going] if ahead is None else rows.length[going] + ahead.counts - 1
    width = max([-(-int(lengths.max(initial=0)) // PAGE), *(len(chunk.nodes) for chunk in chunks)])
    table = np.zeros((count + len(chunks), width), dtype=np.int32)
    table[:count] = rows.pages[going, :width]
    plan, owners, at = rows.plan(going), np.arange(count), count
    positions = [rows.length[going] - 1]
    tokens = [rows.last[going]]
    if ahead is not None:
        owners, at = ahead.owners(), len(ahead.tokens)
        positions = [positions[0][owners] + ahead.within()]
        tokens = [np.roll(ahead.tokens.numpy(force=True), 1)]
        tokens[0][ahead.first] = rows.last[going]
        plan = _widened(plan, ahead.counts)
    places = [table[owners, positions[0] // PAGE]]
    tasks = []
    for number, chunk in enumerate(chunks, count):
        pages = chunk.pages()
        table[number, : len(pages)] = pages
        place = np.arange(chunk.start, chunk.end)
        positions.append(place)
        tokens.append(np.array(chunk.tokens(), dtype=np.int64))
        places.append(table[number, place // PAGE])
        tasks.append((at, at + len(place), number, 0, width))
        at += len(place)
    position, page = np.concatenate(positions), np.concatenate(places)
    return Batch(
        torch.from_numpy(np.concatenate(tokens)).to(device),
        torch.from_numpy(position.astype(np.int32)).to(device),
        torch.from_numpy(page.astype(np.int64) * PAGE + position % PAGE).to(device),
        torch.from_numpy(table).to(device),
        _beside(plan, tasks),
    )


def compute(
    runner: Runner, pages: Pages, rows: Rows, going: np.ndarray, chunks: Sequence[Chunk], ahead: Ahead | None = None
) -> Tensor:
    """Return the hidden states of the batch; if memory runs out on the way, do it again in two halves.

    Doing it again writes the same keys and values to the same places.  Raises TooLarge when nothing can be halved.
    """
    try:
        return runner.run(joined(rows, going, chunks, device=runner.device, ahead=ahead), pages)
    except (MemoryError, RuntimeError) as error:
        if not short_of_memory(error):
            raise
        if len(going) + len(chunks) < 2:
            if not chunks or chunks[0].end - chunks[0].start < 2:
                raise TooLarge(chunks[0].job if chunks else rows.jobs[int(going[0])], error) from error
            return torch.cat([compute(runner, pages, rows, going, [part], ahead) for part in chunks[0].halves()])
    half, part = len(going) // 2, (len(chunks) + len(going) % 2) // 2
    parts = (None, None) if ahead is None else (ahead.part(0, half), ahead.part(half, len(going)))
    first = compute(runner, pages, rows, going[:half], chunks[:part], parts[0])
    second = compute(runner, pages, rows, going[half:], chunks[part:], parts[1])
    ends = [
        count if one is None else len(one.tokens) for one, count in zip(parts, (half, len(going) - half), strict=True)
    ]
    return torch.cat([first[: ends[0]], second[: ends[1]], first[ends[0] :], second[ends[1] :]])


def _widened(plan: Plan, counts: np.ndarray) -> Plan:
    """Return the plan for rows of so many neighbouring queries each, instead of one."""
    edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    tasks = plan.tasks.copy()
    tasks[:, :2] = edges[tasks[:, :2]]
    return Plan(tasks, plan.phases)


def _beside(plan: Plan, tasks: Sequence[tuple[int, ...]]) -> Plan:
    """Return the plan with more tasks in its first phase, the longest first."""
    if not tasks:
        return plan
    more = np.array(sorted(tasks, key=lambda task: task[0] - task[1]), dtype=np.int32)
    phases = plan.phases + len(more)
    phases[0] = 0
    return Plan(np.ascontiguousarray(np.concatenate([more, plan.tasks])), phases)
