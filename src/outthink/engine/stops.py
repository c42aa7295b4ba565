"""Stop strings: which tokens may complete one, and whether one is complete."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from outthink.engine.vocabulary import Vocabulary

_TABLES = 512  # sets of stop strings remembered: whoever serves strangers sees new ones for ever


class Stops:
    """Finds stop strings in tokens, wherever token borders lie: by bytes, looking only at tokens that may end one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._spelled = vocabulary.spelled
        self.table = lru_cache(maxsize=_TABLES)(self._table)

    def _table(self, stops: tuple[str, ...]) -> np.ndarray:
        """Return for each token whether one of `stops` could end inside it [vocabulary]."""
        wanted = [stop.encode() for stop in stops]
        return np.array([any(_may_end(stop, token) for stop in wanted) for token in self._spelled])

    def found(self, tokens: Sequence[int] | np.ndarray, stops: tuple[str, ...]) -> str | None:
        """Return the stop string that ends inside the last of `tokens` (the first to end; ties: first listed)."""
        last = self._spelled[tokens[-1]]
        tail, need = last, max(len(stop.encode()) for stop in stops) - 1 + len(last)
        for token in reversed(tokens[:-1]):
            if len(tail) >= need:
                break
            tail = self._spelled[token] + tail
        before = len(tail) - len(last)
        ends: list[tuple[int, int]] = []
        for index, stop in enumerate(stops):
            wanted = stop.encode()
            at = tail.find(wanted, max(0, before - len(wanted) + 1))
            if at >= 0:
                ends.append((at + len(wanted), index))
        return stops[min(ends)[1]] if ends else None


class StopTables:
    """The tables of the rows in use, in one array [tables, vocabulary], so that all rows are looked up at once."""

    def __init__(self, stops: Stops, *, size: int) -> None:
        self._stops = stops
        self.tables = np.zeros((1, size), dtype=bool)
        self._index: dict[tuple[str, ...], int] = {(): 0}

    def index(self, stops: tuple[str, ...], *, used: np.ndarray) -> int:
        """Return where the table of `stops` is, adding it if need be.

        When there are too many, those not in `used` (the indices of all rows) go, and `used` is renumbered in place.
        """
        if stops not in self._index:
            if len(self.tables) >= _TABLES:
                kept = np.unique(np.append(used, 0))
                self._index = {one: int(np.searchsorted(kept, at)) for one, at in self._index.items() if at in kept}
                used[:] = np.searchsorted(kept, used)
                self.tables = self.tables[kept]
            self._index[stops] = len(self.tables)
            self.tables = np.concatenate([self.tables, self._stops.table(stops)[None]])
        return self._index[stops]


def _may_end(stop: bytes, token: bytes) -> bool:
    cuts = (cut for cut in range(1, len(token) + 1) if token[cut - 1] == stop[-1])
    return any(stop.endswith(token[:cut]) or token[:cut].endswith(stop) for cut in cuts)
