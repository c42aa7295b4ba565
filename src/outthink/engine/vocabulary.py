"""What tokens spell: encoding of prefixes and text of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b

from tokenizers import Tokenizer

from outthink.core.refs import Prefix


class Vocabulary:
    """A tokenizer as the engine needs it: every token has the bytes that it spells; special tokens spell nothing."""

    def __init__(self, tokenizer: Tokenizer, *, size: int) -> None:
        self._tokenizer, self.size = tokenizer, size
        self.digest = blake2b(tokenizer.to_str().encode(), digest_size=8).hexdigest()
        self.spelled = _spellings(tokenizer, size)

    def encode(self, text: str, *, root: bool = False) -> tuple[int, ...]:
        """Return the tokens of `text`; the root of a prefix gets what the tokenizer puts before texts, if anything."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=root).ids)

    def tokens(self, prefix: Prefix) -> tuple[int, ...]:
        """Return the tokens of the last piece of `prefix`: the exact ones if this vocabulary wrote them."""
        if prefix.tokens is not None and prefix.vocabulary == self.digest:
            return prefix.tokens
        return self.encode(prefix.piece, root=prefix.parent is None)

    def spell(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes that `tokens` spell."""
        return b"".join([self.spelled[token] for token in tokens])

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`; bytes that are no UTF-8 (a character cut in two) become U+FFFD."""
        return self.spell(tokens).decode("utf-8", "replace")


def _spellings(tokenizer: Tokenizer, size: int) -> list[bytes]:
    decoder = (json.loads(tokenizer.to_str()).get("decoder") or {}).get("type")
    added = {index: token for index, token in tokenizer.get_added_tokens_decoder().items()}
    spell = _spell_bytes if decoder == "ByteLevel" else _spell_after
    spelled: list[bytes] = []
    for index in range(size):
        if index in added:
            spelled.append(b"" if added[index].special else added[index].content.encode())
        else:
            name = tokenizer.id_to_token(index)
            spelled.append(b"" if name is None else spell(tokenizer, index, name))
    return spelled


def _spell_bytes(tokenizer: Tokenizer, index: int, name: str) -> bytes:
    return b"".join(_BYTES[char] if char in _BYTES else char.encode() for char in name)


def _spell_after(tokenizer: Tokenizer, index: int, name: str) -> bytes:
    """Spell a token as it reads after another one: some decoders take the space off the first token of a text."""
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", name)
    if byte:
        return bytes.fromhex(byte[1])
    return tokenizer.decode([index, index])[len(tokenizer.decode([index])) :].encode()


def _byte_alphabet() -> dict[str, bytes]:
    """Return the bytes behind the printable characters that byte-level tokenizers write them with (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): bytes([byte]) for byte in plain}
    rest = (byte for byte in range(256) if byte not in set(plain))
    return table | {chr(256 + shift): bytes([byte]) for shift, byte in enumerate(rest)}


_BYTES = _byte_alphabet()
