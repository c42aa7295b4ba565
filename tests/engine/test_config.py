"""Configs as published models have them: shapes that add up to the published sizes, and what is read of them."""

import pytest

from outthink.engine.config import Config
from outthink.engine.size import KINDS, kv_bytes, parameters, weight_bytes

LLAMA3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
          "rope_type": "llama3"}  # fmt: skip
PUBLISHED = {
    "Llama 2 7B": (6_738_415_616, {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "rope_scaling": None,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "eos_token_id": 2, "bos_token_id": 1,
    }),
    "Llama 3.2 1B": (1_235_814_400, {
        "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "rope_theta": 500000.0, "rope_scaling": LLAMA3, "max_position_embeddings": 131072,
        "tie_word_embeddings": True, "eos_token_id": [128001, 128008, 128009],
    }),
    "Mistral 7B": (7_241_732_096, {
        "architectures": ["MistralForCausalLM"], "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
        "max_position_embeddings": 32768, "tie_word_embeddings": False, "eos_token_id": 2,
    }),
    "Qwen2.5 0.5B": (494_032_768, {
        "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rope_theta": 1000000.0,
        "max_position_embeddings": 32768, "max_window_layers": 21, "sliding_window": 32768,
        "use_sliding_window": False, "tie_word_embeddings": True, "eos_token_id": 151645,
    }),
    "Qwen3 0.6B": (596_049_920, {
        "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_theta": 1000000, "attention_bias": False, "max_position_embeddings": 40960, "max_window_layers": 28,
        "sliding_window": None, "use_sliding_window": False, "tie_word_embeddings": True, "eos_token_id": 151645,
    }),
}  # fmt: skip


@pytest.mark.parametrize(("size", "data"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_shapes_add_up_to_the_published_size(size, data):
    config = Config.from_json(data)
    assert parameters(config) == size
    assert Config.from_json(config.to_json()) == config
    assert config.sliding_window == (4096 if config.family == "Mistral" else None)
    assert config.qkv_bias == (config.family == "Qwen2") and not config.o_bias
    assert config.qk_norm == (config.family == "Qwen3")


def test_memory_by_kind():
    """Mistral 7B: 32 layers of 8 key heads of 128 channels, and 14.5 GB in 16 bits, as its card says."""
    config = Config.from_json(PUBLISHED["Mistral 7B"][1])
    assert kv_bytes(config, "bfloat16") == 2 * 32 * 8 * 128 * 2 == kv_bytes(config, "float32") // 2
    assert weight_bytes(config, "bfloat16") == pytest.approx(14.48e9, rel=0.001)
    sizes = [weight_bytes(config, kind) for kind in KINDS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == pytest.approx(7.5e9, rel=0.01) and sizes[3] == pytest.approx(4.9e9, rel=0.01)


def test_narrow_heads_are_kept_a_vector_wide():
    data = PUBLISHED["Llama 3.2 1B"][1] | {"head_dim": 40}
    assert kv_bytes(Config.from_json(data), "float32") == 2 * 16 * 8 * 48 * 4


def test_what_a_file_does_not_say_is_as_in_transformers():
    import transformers

    for family in ("Llama", "Mistral", "Qwen2", "Qwen3"):
        peer = getattr(transformers, f"{family}Config")(hidden_size=4096, num_attention_heads=32)
        bare = {"architectures": [f"{family}ForCausalLM"], "vocab_size": peer.vocab_size, "hidden_size": 4096,
                "intermediate_size": 9, "num_hidden_layers": 1, "num_attention_heads": 32}  # fmt: skip
        config = Config.from_json(bare)
        assert config.max_position_embeddings == peer.max_position_embeddings
        assert config.num_key_value_heads == peer.num_key_value_heads
        assert config.head_dim == (getattr(peer, "head_dim", None) or 128)
        assert config.tie_word_embeddings == peer.tie_word_embeddings
        assert config.rms_norm_eps == peer.rms_norm_eps
        assert config.sliding_window == getattr(peer, "sliding_window", None)
        assert config.rope_theta == peer.rope_parameters["rope_theta"]
