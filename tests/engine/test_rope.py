"""Rotary frequencies against those of transformers, bit for bit, in both forms of config.json."""

import pytest
import torch

from outthink.engine.config import Config
from outthink.engine.errors import CheckpointError
from outthink.engine.llama import rotary
from outthink.engine.rope import frequencies

SHAPE = {"architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 256, "intermediate_size": 64,
         "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 4096}  # fmt: skip
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}
SCALINGS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", **LLAMA3},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn, context unsaid": {"rope_type": "yarn", "factor": 4.0},
    "yarn, own ramp": {"rope_type": "yarn", "factor": 16.0, "beta_fast": 20.0, "beta_slow": 2.0, "truncate": False,
                       "original_max_position_embeddings": 256},
    "yarn, mscale": {"rope_type": "yarn", "factor": 40.0, "mscale": 0.7, "mscale_all_dim": 1.0,
                     "original_max_position_embeddings": 128},
    "yarn, factor given": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25},
}  # fmt: skip


def expected(data):
    """Return (inverse frequencies, attention factor) of transformers' own Llama."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = LlamaRotaryEmbedding(LlamaConfig(**data))
    return rope.inv_freq, rope.attention_scaling


@pytest.mark.parametrize("theta", [10000.0, 1e6])
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_frequencies_are_those_of_transformers(scaling, theta):
    new = SHAPE | {"rope_parameters": scaling | {"rope_theta": theta}}
    old = SHAPE | {"rope_theta": theta, "rope_scaling": {"type": scaling["rope_type"]} | scaling}
    wanted, factor = expected({**SHAPE, "rope_parameters": dict(new["rope_parameters"])})
    for data in (new, old):
        config = Config.from_json(data)
        hash(config)
        found, own = frequencies(config)
        assert torch.equal(found, wanted)
        assert own == pytest.approx(factor, rel=1e-12)
        assert Config.from_json(config.to_json()) == config, "what is written is read as the same"


def test_what_we_write_of_a_scaling_transformers_reads_as_we_do():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = Config.from_json(SHAPE | {"rope_parameters": SCALINGS["llama3"] | {"rope_theta": 500000.0}})
    peer = LlamaRotaryEmbedding(LlamaConfig(**config.to_json()))
    assert torch.equal(peer.inv_freq, frequencies(config)[0])


def test_turns_of_the_training_module_are_scaled_too():
    config = Config.from_json(SHAPE | {"rope_parameters": SCALINGS["yarn"] | {"rope_theta": 10000.0}})
    cosine, sine = rotary(torch.tensor([7]), config)
    found, factor = frequencies(config)
    assert torch.allclose(cosine[0, 0], (7 * found).cos() * factor)
    assert torch.allclose(sine[0, 0], (7 * found).sin() * factor)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, r"longrope.*default, linear, dynamic, llama3, yarn"),
        ({"rope_type": "llama3", "factor": 2.0}, "low_freq_factor, high_freq_factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"full_attention": {"rope_type": "default"}}, "differ between layers"),
    ],
)
def test_what_is_not_supported_is_named(rope, message):
    with pytest.raises(CheckpointError, match=message):
        Config.from_json(SHAPE | {"rope_parameters": rope})
