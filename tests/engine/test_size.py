"""Plans for memory: what they need, to the byte, and what is said of those that do not fit."""

import pytest

from outthink.core.errors import InvalidInput
from outthink.engine.engine import Engine
from outthink.engine.size import amount, kv_bytes, planned
from outthink.testing.tiny_llama import tiny_llama

CONFIG = tiny_llama()[0]
TOKEN = kv_bytes(CONFIG, "float32")


@pytest.mark.parametrize(
    ("branches", "length", "shared", "pages"),
    [(1, 1, 0, 1), (1, 16, 0, 1), (1, 17, 0, 2), (4, 40, 0, 12), (4, 40, 32, 2 + 4), (4, 40, 39, 2 + 4), (3, 32, 32, 2),
     (3, 20, 20, 1 + 3)],
)  # fmt: skip
def test_a_plan_counts_whole_pages_and_shared_ones_once(branches, length, shared, pages):
    need = planned(CONFIG, "float32", branches=branches, length=length, shared=shared)
    assert (
        need
        == pages * 16 * TOKEN
        == planned(CONFIG, "float32", branches=branches, length=length, shared=shared, have=need)
    )
    assert 2 * planned(CONFIG, "int8", branches=branches, length=length, shared=shared) == need
    with pytest.raises(InvalidInput, match="use --kv-bytes"):
        planned(CONFIG, "float32", branches=branches, length=length, shared=shared, have=need - 1)


def test_the_engine_holds_what_was_planned():
    engine = Engine(*tiny_llama())
    text = "the cat sat on the mat" * 4
    engine.generate([text], max_tokens=1)
    length = len(engine.vocabulary.encode(text, root=True)) + 1
    assert engine.usage().peak * engine.forest.pages.page_bytes == planned(CONFIG, "float32", branches=1, length=length)


def test_the_sentence_says_what_is_needed_what_there_is_and_what_to_do():
    with pytest.raises(InvalidInput) as error:
        planned(CONFIG, "float32", branches=256, length=2048, shared=1024, have=3 << 25)
    assert str(error.value) == (
        "needs 128.5 MiB of KV for 256 branches x 2,048 tokens, 1,024 of them shared; have 96.0 MiB: "
        "use --kv-bytes (kv_bytes) or fewer branches"
    )


@pytest.mark.parametrize(("branches", "length", "shared"), [(0, 1, 0), (1, 0, 0), (1, 8, 9), (1, 8, -1)])
def test_a_plan_without_sense_is_refused(branches, length, shared):
    with pytest.raises(InvalidInput, match="share at most all"):
        planned(CONFIG, "float32", branches=branches, length=length, shared=shared)


def test_a_context_that_cannot_be_held_is_refused_and_one_that_nobody_asked_for_is_cut():
    assert Engine(*tiny_llama(), kv_bytes=60_000).context < 128
    with pytest.raises(InvalidInput, match=r"needs .* for one text of 128 tokens; have .* use --kv-bytes"):
        Engine(*tiny_llama(), kv_bytes=60_000, context=128)
    assert Engine(*tiny_llama(), context=500).context == 128, "the model's own limit"


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1 << 10, "1.0 KiB"), (5 << 29, "2.5 GiB")])
def test_amounts(n, text):
    assert amount(n) == text
