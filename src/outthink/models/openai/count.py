"""How many tokens a prompt can have at most, before it is sent."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

from ...core.errors import InvalidInput
from ...core.refs import Prefix

JOINT = 8
"""Tokens by which the count of a text may grow where more is appended: the last word may be split anew."""

REMEMBER = 2**16
"""Prompts whose count is remembered."""


class PromptCounter:
    """Bounds of prompts: what the server counted for the same prompt; else by tokenizer; else by bytes.

    A byte makes at most one token in byte-level and byte-fallback vocabularies, of the text as it is or in the NFKC
    form that some tokenizers bring it to. What the server counted for an ancestor of a prefix replaces the bytes of
    that ancestor. `overhead` is what the server adds to a text; with a tokenizer it is learnt from each answer.
    """

    def __init__(self, *, overhead: int, tokenizer: Callable[[str], int] | None = None) -> None:
        self.overhead, self._tokenizer = overhead, tokenizer
        self._served: dict[bytes, int] = {}
        self._texts: dict[bytes, int] = {}

    def bound(self, prefix: Prefix) -> int:
        """Return the most tokens that the prompt of `prefix` can have."""
        served = self._served.get(prefix.digest)
        if served is not None:
            return served
        if self._tokenizer is not None:
            return self._count(prefix) + self.overhead
        beyond = 0
        for node in prefix.ancestors():
            served = self._served.get(node.digest)
            if served is not None:
                return served + beyond + JOINT
            beyond += _bytes(node.piece)
        return beyond + self.overhead

    def learn(self, prefix: Prefix, served: int) -> None:
        """Remember that the server counted `served` tokens for `prefix`."""
        while len(self._served) >= REMEMBER:
            del self._served[next(iter(self._served))]
        self._served[prefix.digest] = served
        if self._tokenizer is not None:
            self.overhead = max(self.overhead, served - self._count(prefix))

    def _count(self, prefix: Prefix) -> int:
        count = self._texts.get(prefix.digest)
        if count is None:
            assert self._tokenizer is not None
            while len(self._texts) >= REMEMBER:
                del self._texts[next(iter(self._texts))]
            count = self._texts[prefix.digest] = self._tokenizer(prefix.text)
        return count


def _bytes(text: str) -> int:
    plain = len(text.encode("utf-8", "surrogatepass"))
    if text.isascii():
        return plain
    return max(plain, len(unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")))


def tokenizer_counter(path: str | Path) -> Callable[[str], int]:
    """Return text -> number of tokens by the tokenizer.json at `path` (special tokens of the text's ends included).

    Raises InvalidInput if it cannot be read, or if `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InvalidInput("counting by a tokenizer needs an extra: pip install 'outthink[engine]'") from None
    if not Path(path).is_file():
        raise InvalidInput(f"{path}: no such file; give the tokenizer.json of the model, or no tokenizer at all")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise InvalidInput(f"{path}: not a tokenizer.json ({error}); copy the model's own") from None
    return lambda text: len(tokenizer.encode(text).ids)
