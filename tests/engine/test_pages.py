import pytest
import torch

from outthink.core.errors import InvalidInput
from outthink.engine.pages import PAGE, OutOfPages, Pages, page_bytes


def small(count: int = 4) -> Pages:
    return Pages(2, kv_heads=3, head_dim=5, count=count, dtype=torch.float32)


def test_shapes_and_bytes_are_those_of_sixteen_tokens_in_all_layers():
    pages = small()
    assert pages.keys.shape == (2, 4, 3, 5, PAGE)
    assert pages.values.shape == (2, 4, 3, PAGE, 5)
    held = pages.keys.nbytes + pages.values.nbytes
    assert pages.page_bytes * 4 == held
    assert page_bytes(2, kv_heads=3, head_dim=5, dtype=torch.bfloat16) * 2 == pages.page_bytes


def test_the_lowest_free_page_is_taken_first_and_the_peak_is_remembered():
    pages = small()
    assert [pages.take() for _ in range(3)] == [0, 1, 2]
    pages.give(2)
    pages.give(0)
    assert (pages.used, pages.free, pages.peak) == (1, 3, 3)
    assert [pages.take() for _ in range(3)] == [0, 2, 3]
    assert (pages.used, pages.free, pages.peak) == (4, 0, 4)


def test_a_full_pool_says_so_and_what_to_do():
    pages = small(1)
    pages.take()
    with pytest.raises(OutOfPages, match=r"all 1 pages of 16 tokens are in use.*kv_bytes"):
        pages.take()
    assert pages.used == 1


def test_a_page_cannot_be_given_back_twice_or_without_being_taken():
    pages = small()
    page = pages.take()
    pages.give(page)
    for wrong in (page, 3, -1):
        with pytest.raises(ValueError, match=f"page {wrong} is not in use"):
            pages.give(wrong)
    assert pages.used == 0


def test_no_memory_is_refused():
    with pytest.raises(InvalidInput, match="0 pages"):
        small(0)


def test_copy_takes_the_first_tokens_of_all_layers_and_nothing_else():
    pages = small(2)
    pages.keys.copy_(torch.randn(pages.keys.shape))
    pages.values.copy_(torch.randn(pages.values.shape))
    keys, values = pages.keys.clone(), pages.values.clone()
    pages.copy(0, 1, count=5)
    keys[:, 1, ..., :5], values[:, 1, :, :5] = keys[:, 0, ..., :5], values[:, 0, :, :5]
    assert torch.equal(pages.keys, keys)
    assert torch.equal(pages.values, values)
    pages.copy(0, 1)
    assert torch.equal(pages.keys[:, 1], keys[:, 0])
