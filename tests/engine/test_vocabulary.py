"""What tokens spell, and stop strings."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from outthink.core.refs import Prefix
from outthink.engine.links import Links
from outthink.engine.stops import Stops, StopTables
from outthink.engine.vocabulary import Vocabulary
from outthink.testing.tiny_llama import tiny_tokenizer


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = tiny_tokenizer()
    return Vocabulary(tokenizer, size=tokenizer.get_vocab_size())


def test_text_is_what_the_tokenizer_decodes(vocabulary):
    rng = random.Random(0)
    for _ in range(200):
        tokens = [rng.randrange(vocabulary.size) for _ in range(rng.randrange(12))]
        assert vocabulary.text(tokens) == tiny_tokenizer().decode(tokens)
    for text in ("the cat\n\nünï ", "", "\x00\t 🙂"):
        assert vocabulary.text(vocabulary.encode(text)) == text


def test_the_end_token_spells_nothing(vocabulary):
    assert vocabulary.spelled[0] == b""


def test_a_sentencepiece_like_tokenizer_keeps_its_spaces():
    words = {"▁the": 0, "▁cat": 1, "s": 2, "<0x0A>": 3}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])  # fmt: skip
    assert Vocabulary(tokenizer, size=5).spelled == [b" the", b" cat", b"s", b"\n", b""]


def first_stop(text, stops):
    """The definition: the stop whose first match ends first; ties go to the one listed first."""
    ends = [(text.find(stop) + len(stop), i) for i, stop in enumerate(stops) if stop in text]
    return min(ends, default=None)


def test_stops_are_found_as_soon_as_they_are_complete_wherever_tokens_begin(vocabulary):
    """Random texts, cut into random tokens, against the definition; the table never misses a token that completes."""
    rng, finder = random.Random(1), Stops(vocabulary)
    stops_of = [("\n",), ("\n\n",), ("at\n", "he c"), ("ü",), ("the cat sat", "sat"), ("answer: 1", "r: 12"), (".",)]
    hits = 0
    for _ in range(400):
        stops = rng.choice(stops_of)
        tokens = []
        for _ in range(12):
            piece = rng.choice(["the ", "cat ", "sat", "\n", "\n\n", "answer:", " 12", "ü", "he", ".", " c", "at"])
            tokens += vocabulary.encode(piece)
        table = finder.table(stops)
        for end in range(1, len(tokens) + 1):
            found = finder.found(tokens[:end], stops)
            expected = first_stop(vocabulary.spell(tokens[:end]), [stop.encode() for stop in stops])
            assert found == (None if expected is None else stops[expected[1]])
            if found is not None:
                assert table[tokens[end - 1]]
                hits += 1
                break
    assert hits > 100


def test_tokens_of_this_vocabulary_are_kept_and_others_are_encoded(vocabulary):
    root = Prefix("the cat")
    odd = tuple(vocabulary.encode("s") + vocabulary.encode("at"))
    links = Links(vocabulary)
    assert links.of(root.extend("sat", tokens=odd, vocabulary=vocabulary.digest)).tokens == odd
    assert links.of(root.extend("sat", tokens=(1, 2), vocabulary="other")).tokens == vocabulary.encode("sat")


def test_links_add_up_over_a_deep_chain(vocabulary):
    prefix, links = Prefix("the "), Links(vocabulary)
    for _ in range(3_000):
        prefix = prefix.extend("cat ")
    link = links.of(prefix)
    assert (
        link.end == len(link.whole()) == len(links.of(Prefix("the ")).tokens) + 3_000 * len(vocabulary.encode("cat "))
    )


def test_stop_tables_are_bounded_and_keep_those_in_use(vocabulary):
    finder = Stops(vocabulary)
    tables, used = StopTables(finder, size=vocabulary.size), np.zeros(3, dtype=np.int64)
    for number in range(700):
        used[number % 3] = tables.index((f"stop {number % 10}{number // 10}",), used=used)
    assert len(tables.tables) <= 512
    for row, number in ((0, 699), (1, 697), (2, 698)):
        expected = finder.table((f"stop {number % 10}{number // 10}",))
        assert (tables.tables[used[row]] == expected).all() and expected.any()
