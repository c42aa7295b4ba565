"""The checkpoint format, against transformers."""

import json

import pytest
import torch

from outthink.engine.checkpoint import REWARD_MODEL, CheckpointError, Config, load_checkpoint, save_checkpoint, shapes
from outthink.engine.llama import Llama
from outthink.training.recipes import write_model
from outthink.training.tokenizer import build_tokenizer

CONFIG = Config(
    vocab_size=560,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    eos_token_ids=(0,),
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def random_model(config):
    torch.manual_seed(0)
    model = Llama(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def folder(tmp_path, tokenizer):
    write_model(tmp_path, random_model(CONFIG), tokenizer)
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": REWARD_MODEL},
        {"tie_word_embeddings": False},
        {"rope_theta": 500.0, "num_key_value_heads": 4},
    ],
    ids=["language", "reward", "untied", "rope"],
)
@pytest.mark.filterwarnings("ignore")
def test_transformers_computes_the_same_logits(tmp_path, tokenizer, changes):
    from dataclasses import replace

    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    config = replace(CONFIG, **changes)
    model = random_model(config)
    write_model(tmp_path, model, tokenizer)
    kind = AutoModelForTokenClassification if config.is_reward_model else AutoModelForCausalLM
    peer = kind.from_pretrained(tmp_path).eval()
    tokens = torch.randint(0, CONFIG.vocab_size, (3, 19))
    with torch.no_grad():
        assert torch.allclose(model.logits(model.hidden(tokens)), peer(tokens).logits, atol=1e-4)


def test_what_was_saved_is_loaded(tmp_path, tokenizer):
    model = random_model(CONFIG)
    save_checkpoint(tmp_path, CONFIG, weights=model.state_dict(), tokenizer=tokenizer)
    config, weights, loaded = load_checkpoint(tmp_path)
    assert config == CONFIG
    assert weights.keys() == model.state_dict().keys() == shapes(CONFIG).keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert loaded.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_json_is_refused(folder, name):
    (folder / name).write_text('{"cut": ')
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "has shape"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unknown"),
        ({"architectures": ["GPT2LMHeadModel"]}, "'GPT2LMHeadModel' is not supported"),
        ({"architectures": None}, "None"),
        ({"attention_bias": True}, r"missing .*k_proj\.bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "llama3"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"vocab_size": None}, "vocab_size|shape"),
    ],
)
def test_what_does_not_fit_is_said(folder, changes, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_nothing_is_written_for_weights_that_do_not_fit(tmp_path, tokenizer):
    weights = random_model(CONFIG).state_dict()
    del weights["model.norm.weight"]
    with pytest.raises(CheckpointError, match="nothing was written"):
        save_checkpoint(tmp_path / "new", CONFIG, weights=weights, tokenizer=tokenizer)
    assert not (tmp_path / "new").exists()


@pytest.mark.filterwarnings("ignore")
def test_transformers_serves_the_folder(folder, tokenizer):
    from transformers import AutoTokenizer

    served = AutoTokenizer.from_pretrained(folder)
    text = "[1] Ben has 52 cups.\nHow many cups does Ben have now?\n"
    assert served(text)["input_ids"] == tokenizer.encode(text).ids
    assert served.apply_chat_template([{"role": "user", "content": text}], tokenize=False) == text
    assert served.eos_token_id == 0
