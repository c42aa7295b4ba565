"""Every family against transformers: random weights, saved by transformers itself, logits and greedy texts."""

import json

import numpy as np
import pytest
import torch

from outthink.core.errors import Unsupported
from outthink.engine.checkpoint import load_checkpoint, read_config, save_checkpoint
from outthink.engine.config import Config
from outthink.engine.engine import Engine
from outthink.engine.errors import CheckpointError
from outthink.engine.levels import plan
from outthink.engine.llama import Llama
from outthink.engine.pages import Pages
from outthink.engine.runner import Batch, Runner
from outthink.engine.size import parameters
from outthink.testing.tiny_llama import tiny_tokenizer

VOCABULARY = tiny_tokenizer().get_vocab_size()
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None,
         "eos_token_id": 0, "pad_token_id": None}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
WINDOW = {"use_sliding_window": True, "sliding_window": 20}
CASES = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, own head width": ("Llama", {"head_dim": 32}),
    "llama, no groups, heads of 12": ("Llama", {"num_key_value_heads": 4}),
    "llama, one key head": ("Llama", {"num_key_value_heads": 1}),
    "llama, four biases": ("Llama", {"attention_bias": True}),
    "llama, llama3 rope": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 64}),
    "llama, yarn rope": ("Llama", {"rope_parameters": YARN, "head_dim": 64}),
    "llama, linear rope": ("Llama", {"rope_parameters": LINEAR}),
    "llama, dynamic rope": ("Llama", {"rope_parameters": LINEAR | {"rope_type": "dynamic"}}),
    "mistral, no window": ("Mistral", {"sliding_window": None}),
    "mistral, window": ("Mistral", {"sliding_window": 24}),
    "mistral, window of one page": ("Mistral", {"sliding_window": 16}),
    "mistral, window beyond the context": ("Mistral", {"sliding_window": 4096}),
    "qwen2": ("Qwen2", {}),
    "qwen2, tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, window in all layers": ("Qwen2", WINDOW | {"max_window_layers": 0}),
    "qwen2, window that is off": ("Qwen2", {"use_sliding_window": False, "sliding_window": 20}),
    "qwen2, yarn rope": ("Qwen2", {"rope_parameters": YARN, "num_attention_heads": 2, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3, tied, wide heads": ("Qwen3", {"head_dim": 64, "tie_word_embeddings": True}),
    "qwen3, four biases": ("Qwen3", {"head_dim": 16, "attention_bias": True}),
}  # fmt: skip
REWARDS = {name: CASES[name] for name in ("llama", "llama, four biases", "mistral, window", "qwen2", "qwen3")}


def made(folder, family, changes, kind="ForCausalLM", shard="5GB"):
    """Save a random model of `family` by transformers, with our small tokenizer; return transformers' model."""
    import transformers

    config = getattr(transformers, f"{family}Config")(
        **SHAPE | changes, **({"num_labels": 1} if kind[3] == "T" else {})
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}{kind}")(config).eval()
    for name, weight in model.named_parameters():
        # gains around one, biases and projections large enough to matter
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(weight, mean=1.0, std=0.2)
        else:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5 if weight.dim() == 2 else 0.3)
    model.save_pretrained(folder, max_shard_size=shard)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def hidden(folder, tokens, **options):
    """Return (runner, hidden states [T, d]) of one text, all tokens in one batch."""
    config, weights, _ = load_checkpoint(folder)
    runner = Runner(config, weights, context=128, **options)
    count = -(-len(tokens) // 16)
    pages = Pages(config.num_hidden_layers, kv_heads=config.num_key_value_heads, head_dim=runner.width,
                  count=count, dtype=torch.float32)  # fmt: skip
    table = np.repeat(np.arange(count, dtype=np.int32)[None], len(tokens), 0)
    positions = torch.arange(len(tokens), dtype=torch.int32)
    group = config.num_attention_heads // config.num_key_value_heads
    task = plan(table, np.zeros(len(tokens), dtype=np.int64), group=group)
    batch = Batch(tokens.int(), positions, positions.long(), torch.from_numpy(table), task)
    return runner, runner.run(batch, pages)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_are_those_of_transformers(tmp_path, case):
    model = made(tmp_path, *case)
    tokens = torch.randint(VOCABULARY, (90,), generator=torch.Generator().manual_seed(1))
    runner, states = hidden(tmp_path, tokens)
    with torch.no_grad():
        wanted = model(tokens[None]).logits[0]
    assert wanted.std() > 0.5, "logits must be large enough for an error to show"
    assert (runner.logits(states) - wanted).abs().max() < 1e-4
    assert parameters(read_config(tmp_path)) == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("case", REWARDS.values(), ids=REWARDS.keys())
def test_rewards_are_those_of_transformers(tmp_path, case):
    model = made(tmp_path, *case, kind="ForTokenClassification")
    tokens = torch.randint(VOCABULARY, (60,), generator=torch.Generator().manual_seed(2))
    runner, states = hidden(tmp_path, tokens)
    assert runner.config.is_reward_model
    with torch.no_grad():
        wanted = model(tokens[None]).logits[0, :, 0].sigmoid()
    assert (runner.rewards(states) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.filterwarnings("ignore")
def test_greedy_texts_are_those_of_transformers(tmp_path, case):
    model = made(tmp_path, *case)
    engine = Engine.load(tmp_path)
    for prompt in ("the cat sat on", "answer: 12\nthe dog ate the rat,\n\nand then the cat ran. answer:"):
        ids = torch.tensor([tiny_tokenizer().encode(prompt).ids])
        out = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :].tolist()
        wanted = engine.vocabulary.text([token for token in out if token != 0])
        assert engine.generate([prompt], max_tokens=40, temperature=0) == [[wanted]]


def test_shards_and_bfloat16_of_transformers_are_read(tmp_path):
    from transformers import AutoModelForCausalLM

    made(tmp_path / "whole", "Qwen2", {}).bfloat16().save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    tiny_tokenizer().save(str(tmp_path / "parts/tokenizer.json"))
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 3
    _, weights, _ = load_checkpoint(tmp_path / "parts")
    assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
    tokens = torch.randint(VOCABULARY, (40,), generator=torch.Generator().manual_seed(1))
    runner, states = hidden(tmp_path / "parts", tokens)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "parts", dtype=torch.float32)
    with torch.no_grad():
        wanted = model(tokens[None]).logits[0]
    assert (runner.logits(states) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
@pytest.mark.filterwarnings("ignore")
def test_what_we_write_transformers_reads(tmp_path, family):
    from transformers import AutoModelForCausalLM

    model = made(tmp_path / "theirs", family, {"head_dim": 16} if family == "Qwen3" else {})
    config, weights, tokenizer = load_checkpoint(tmp_path / "theirs")
    save_checkpoint(tmp_path / "ours", config, weights=weights, tokenizer=tokenizer, shard_bytes=40_000)
    assert read_config(tmp_path / "ours") == config
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(model)
    tokens = torch.arange(50)[None]
    with torch.no_grad():
        assert torch.allclose(again(tokens).logits, model(tokens).logits, atol=1e-5)


def changed(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_every_token_that_ends_a_text_is_known(tmp_path):
    made(tmp_path, "Llama", {})
    (tmp_path / "generation_config.json").unlink()
    assert read_config(changed(tmp_path, eos_token_id=7)).eos_token_ids == (7,)
    config = read_config(changed(tmp_path, eos_token_id=[5, 6]))
    assert (config.eos_token_ids, config.eos_token_id) == ((5, 6), 5)
    assert Config.from_json(config.to_json()) == config
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 5]}')
    assert read_config(tmp_path).eos_token_ids == (9, 5), "what generation stops at goes first, as in transformers"
    assert read_config(changed(tmp_path, eos_token_id=None)).eos_token_ids == (9, 5)
    (tmp_path / "generation_config.json").write_text("{}")
    assert read_config(tmp_path).eos_token_ids == () and read_config(tmp_path).eos_token_id is None


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("Llama", {"architectures": ["MambaForCausalLM"]}, r"'MambaForCausalLM'.*LlamaForCausalLM, Mistral.*Qwen3"),
        ("Qwen2", WINDOW | {"max_window_layers": 1, "layer_types": None}, "some layers only"),
        ("Qwen3", WINDOW | {"layer_types": ["full_attention"] + ["sliding_attention"] * 2}, "some layers only"),
        ("Llama", {"mlp_bias": True}, "mlp_bias"),
        ("Llama", {"num_key_value_heads": 3}, "multiple of key-value heads"),
        ("Llama", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ("Llama", {"hidden_size": "48"}, "hidden_size is '48'"),
        ("Llama", {"quantization_config": {"quant_method": "gptq"}}, "original weights"),
        ("Qwen2", {"hidden_act": "gelu"}, "gelu"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(tmp_path, family, changes, message):
    made(tmp_path, family, {})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(changed(tmp_path, **changes))


def test_biases_and_norms_that_are_not_there_are_named(tmp_path):
    made(tmp_path, "Llama", {})
    with pytest.raises(CheckpointError, match=r"missing .*k_proj\.bias"):
        load_checkpoint(changed(tmp_path, architectures=["Qwen2ForCausalLM"]))
    with pytest.raises(CheckpointError, match=r"missing .*k_norm"):
        load_checkpoint(changed(tmp_path, architectures=["Qwen3ForCausalLM"], head_dim=12))


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
def test_training_refuses_what_it_does_not_know(tmp_path, family):
    """The training module has no biases and no norms of queries: it must not drop them in silence."""
    made(tmp_path, family, {"head_dim": 16} if family == "Qwen3" else {})
    with pytest.raises(Unsupported, match="plain Llamas"):
        Llama(read_config(tmp_path))
