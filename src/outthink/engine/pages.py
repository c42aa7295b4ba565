"""The physical memory of keys and values: a fixed number of pages of 16 tokens, for all layers at once."""

from __future__ import annotations

from heapq import heappop, heappush

import torch
from torch import Tensor

from outthink.core.errors import InvalidInput, OutthinkError

PAGE = 16  # tokens of a page


class OutOfPages(OutthinkError):
    """Every page is in use. The engine makes room by pausing or failing a request; users see it only in messages."""


class Pages:
    """Pages are taken and given back by number. Who owns one is the forest's business.

    keys: [layers, count, kv_heads, head_dim, 16], transposed inside a page, so that a query's product reads rows.
    values: [layers, count, kv_heads, 16, head_dim].
    peak: the most pages that were ever in use at once.

    Memory that was never written is not resident where the system maps pages lazily, and the lowest free number is
    taken first: what is resident stays near `peak` however large `count` is.
    """

    def __init__(
        self,
        layers: int,
        *,
        kv_heads: int,
        head_dim: int,
        count: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        if count < 1:
            raise InvalidInput(f"{count} pages of keys and values: give memory for at least one page of {PAGE} tokens")
        self.keys: Tensor = torch.empty((layers, count, kv_heads, head_dim, PAGE), dtype=dtype, device=device)
        self.values: Tensor = torch.empty((layers, count, kv_heads, PAGE, head_dim), dtype=dtype, device=device)
        self.count, self.peak = count, 0
        self.page_bytes = page_bytes(layers, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype)
        self._given: list[int] = []  # a heap of what came back
        self._next = 0  # from here on nothing was ever taken
        self._taken = bytearray(count)

    @property
    def free(self) -> int:
        return self.count - self._next + len(self._given)

    @property
    def used(self) -> int:
        return self._next - len(self._given)

    def take(self) -> int:
        """Return the lowest free page; its contents are undefined. Raises OutOfPages."""
        if self._given:
            page = heappop(self._given)
        elif self._next < self.count:
            page = self._next
            self._next += 1
        else:
            raise OutOfPages(
                f"all {self.count} pages of {PAGE} tokens are in use; let a request finish or be paused first, "
                "or give the engine more memory (kv_bytes)"
            )
        self._taken[page] = 1
        self.peak = max(self.peak, self.used)
        return page

    def give(self, page: int) -> None:
        """Give a page back. Raises ValueError if it is not in use."""
        if page < 0 or not self._taken[page]:
            raise ValueError(f"page {page} is not in use; only what was taken, and once, can be given back")
        self._taken[page] = 0
        heappush(self._given, page)

    def copy(self, source: int, target: int, *, count: int = PAGE) -> None:
        """Copy the first `count` tokens of page `source` to page `target`, in all layers."""
        self.keys[:, target, :, :, :count] = self.keys[:, source, :, :, :count]
        self.values[:, target, :, :count] = self.values[:, source, :, :count]


def page_bytes(layers: int, *, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Return the bytes of one page: keys and values of 16 tokens in all layers."""
    return 2 * layers * kv_heads * head_dim * PAGE * dtype.itemsize
