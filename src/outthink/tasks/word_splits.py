"""The words of the word problems, and which of them each split may use.

A stable hash deals names, number pairs, sentence frames with their items, and sequences of operations to the
splits "train", "validation" and "heldout".  Held-out problems are new combinations of words seen in training:
every half of every held-out name, and every verb with some other item, occurs in the training split.
"""

from __future__ import annotations

from functools import cache
from zlib import crc32

SPLITS = ("train", "validation", "heldout")

# Names are an initial and an ending; both halves are shared by names of other splits.
WOMEN = tuple(
    initial + ending
    for ending, initials in {
        "en": "J", "wen": "G", "an": "JN", "am": "PC", "im": "K", "ill": "JG", "ia": "MLNTPR", "ina": "TNGD",
        "ora": "NDCL", "ara": "STLKMZ", "ay": "KM", "ean": "J", "ena": "LR", "ary": "M", "eth": "B", "ila": "LM",
        "ana": "DLJ", "elia": "DC", "osa": "R",
    }.items()
    for initial in initials
)  # fmt: skip
MEN = tuple(
    initial + ending
    for ending, initials in {
        "en": "BKL", "an": "DV", "am": "S", "im": "TJ", "on": "RJDL", "ill": "BW", "ed": "TNJ", "ay": "RJ",
        "ick": "RNM", "ean": "SD", "ary": "GC", "ack": "JMZ", "ax": "MJD", "eth": "S", "ark": "M", "al": "VCH",
        "ugo": "H", "ank": "H", "elix": "F",
    }.items()
    for initial in initials
)  # fmt: skip
ITEMS = (
    "pens",
    "coins",
    "books",
    "cards",
    "stamps",
    "apples",
    "beads",
    "shells",
    "tickets",
    "cups",
    "balls",
    "rocks",
    "plums",
    "keys",
    "maps",
    "toys",
)

# kind of sentence -> (sign of its operation, sentence, words that may fill {word}); the operation of an idle kind is
# somebody else's, so that only careless solvers use it
FRAMES = {
    "start": ("", "{who} {word} {a} {item}.", ("has", "owns", "brings", "carries", "counts", "holds")),
    "idle": ("+", "{other} {word} {a} {item}.", ("has", "owns", "brings", "carries", "counts", "holds")),
    "their_gain": ("+", "{other} {word} {a} {item}.", ("buys", "finds", "makes", "gets", "collects", "earns")),
    "their_loss": ("-", "{other} {word} {a} {item}.", ("loses", "sells", "drops", "uses", "spends", "breaks")),
    "gain": ("+", "{he} {word} {a} {item}.", ("buys", "finds", "makes", "gets", "collects", "earns")),
    "lose": ("-", "{he} {word} {a} {item}.", ("loses", "sells", "drops", "uses", "spends", "breaks")),
    "give": ("-", "{he} {word} {a} {item} to {other}.", ("gives", "sends", "hands", "lends", "passes", "mails")),
    "receive": ("+", "{other} {word} {a} {item} to {him}.", ("gives", "sends", "hands", "lends", "passes", "mails")),
    "take": ("+", "{he} {word} {a} {item} from {other}.", ("takes", "borrows", "wins", "grabs", "claims", "steals")),
    "taken": ("-", "{other} {word} {a} {item} from {him}.", ("takes", "borrows", "wins", "grabs", "claims", "steals")),
    "times": ("*", "{he} {word} has {a} times as many {item}.", ("now", "then", "soon", "later", "today", "next")),
    "half": ("/", "{he} {word} half of the {item}.", ("keeps", "saves", "stores", "retains", "guards", "holds")),
}
IDLE = ("idle", "their_gain", "their_loss")


@cache
def names(split: str, people: tuple[str, ...] = WOMEN + MEN) -> tuple[str, ...]:
    """Return those of `people` that problems of `split` may use."""
    return tuple(name for name in people if _deal(f"name {name}", 15, 12) == split)


@cache
def words(split: str, kind: str, item: str) -> tuple[str, ...]:
    """Return the words that `split` may put into a sentence of this kind about `item`, at least one.

    Of the six words of each kind, in an order hashed from kind and item, the first goes to the held-out
    problems, the second to validation and the rest to training.
    """
    order = sorted(FRAMES[kind][2], key=lambda word: crc32(f"{kind} {item} {word}".encode()))
    return tuple({"heldout": order[:1], "validation": order[1:2], "train": order[2:]}[split])


@cache
def pair_split(x: int, a: int) -> str:
    """Return the split that owns the sum and difference of `x` and `a`, whatever their order."""
    return _deal(f"pair {min(x, a)} {max(x, a)}", 10, 10)


@cache
def sequence_split(kinds: tuple[str, ...]) -> str | None:
    """Return the split that owns a sequence of sentence kinds, None if all do (up to two operations)."""
    if sum(kind not in IDLE for kind in kinds) < 3:
        return None
    return _deal("sequence " + " ".join(kinds), 10, 10)


def _deal(key: str, heldout: int, validation: int) -> str:
    """Return the split of `key`, given the per cent of keys that the two smaller splits get."""
    bucket = crc32(key.encode()) % 100
    return "heldout" if bucket < heldout else "validation" if bucket < heldout + validation else "train"
