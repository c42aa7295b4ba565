"""What the engine promises, once more with a draft model: the tests of other files, on engines that draft.

Only tests that compare such engines with each other, or with the model, are here; `test_speculative` compares them with
engines that do not draft, and has what depends on the text of a certain seed.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from outthink.engine.engine import Engine
from outthink.testing.tiny_llama import tiny_llama


def drafted(config, weights, tokenizer, **options):
    if config.is_reward_model:
        return Engine(config, weights, tokenizer, **options)
    small = tiny_llama(layers=1, hidden=32, wide=60, context=config.max_position_embeddings, seed=3)
    return Engine(config, weights, tokenizer, draft=small, lookahead=3, **options)


def again(name, *left_out):
    """Return the tests and fixtures of another file, in which `Engine` is one that drafts."""
    spec = spec_from_file_location(f"drafted_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Engine = drafted
    return {
        key: value
        for key, value in vars(module).items()
        if (key.startswith("test_") or key == "plain") and key not in left_out
    }


@pytest.fixture
def engine():
    return drafted(*tiny_llama(), rows=16)


globals().update(
    again(
        "test_outputs", "plain", "test_the_likeliest_tokens_are_told_at_every_place",
        "test_a_value_head_judges_drafts_on_the_way",
    )
    | again(
        "test_faults", "test_without_c_kernels_it_works_in_torch",
        "test_one_that_is_too_large_even_alone_fails_and_the_others_go_on",
    )
    | again("test_engine", "test_a_monitor_halts_and_takes_back")
    | again("test_memory", "test_what_is_named_stays_until_the_memory_is_needed")
    | again(
        "test_deterministic", "test_rewards_have_the_same_bits_in_any_company",
        "test_a_machine_that_cannot_is_found_out", "test_reduced_precision_is_refused",
        "test_the_probe_notices_a_product_that_depends_on_its_number_of_rows",
    )
)  # fmt: skip
