"""Weights in one file or several: what is written is read, and what is broken is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from outthink.engine.checkpoint import load_checkpoint, save_checkpoint
from outthink.engine.errors import CheckpointError
from outthink.engine.shards import INDEX
from outthink.testing.tiny_llama import tiny_llama

SECOND = "model-00002-of-00006.safetensors"


@pytest.fixture
def sharded(tmp_path):
    config, weights, tokenizer = tiny_llama()
    save_checkpoint(tmp_path, config, weights=weights, tokenizer=tokenizer, shard_bytes=60_000)
    assert (tmp_path / SECOND).is_file() and not (tmp_path / "model.safetensors").exists()
    return tmp_path


def test_shards_hold_what_was_saved(sharded):
    config, weights, _ = tiny_llama()
    found_config, found, _ = load_checkpoint(sharded)
    assert found_config == config and list(found) and found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    sizes = [path.stat().st_size for path in sharded.glob("*.safetensors")]
    largest = max(4 * weight.numel() for weight in weights.values())
    assert max(sizes) < max(60_000, largest) + 4096


def test_transformers_reads_our_shards(sharded):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(sharded)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in load_checkpoint(sharded)[1].items())


def test_one_file_after_shards_and_shards_after_one_file_leave_nothing_behind(sharded):
    config, weights, tokenizer = load_checkpoint(sharded)
    save_checkpoint(sharded, config, weights=weights, tokenizer=tokenizer)  # onto the very files it is read from
    assert [path.name for path in sharded.glob("model*")] == ["model.safetensors"]
    for size in (30_000, 1):
        again = load_checkpoint(sharded)[1]
        save_checkpoint(sharded, config, weights=again, tokenizer=tokenizer, shard_bytes=size)
    names = {path.name for path in sharded.glob("model*")}
    assert len(names) == len(weights) + 1 and INDEX in names
    assert all(torch.equal(load_checkpoint(sharded)[1][name], weight) for name, weight in tiny_llama()[1].items())


def test_a_missing_shard_is_named(sharded):
    (sharded / SECOND).unlink()
    with pytest.raises(CheckpointError, match=rf"{SECOND}: no such file \(shard 2 of 6"):
        load_checkpoint(sharded)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_shard_is_named(sharded, keep):
    path = sharded / SECOND
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{SECOND}: truncated or corrupt"):
        load_checkpoint(sharded)


def test_an_index_of_another_model_is_noticed(sharded):
    path = sharded / INDEX
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.7.input_layernorm.weight"] = SECOND
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"holds model\.layers\.7.*same model"):
        load_checkpoint(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not an index"),
        ("[]", "not an index"),
        ('{"weight_map": 3}', "not an index"),
        ('{"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}', "plain file names"),
        ('{"weight_map": {}}', "missing"),
    ],
)
def test_a_broken_index_is_refused(sharded, text, message):
    (sharded / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(sharded)


def test_pickles_are_not_read(sharded):
    for path in sharded.glob("model*"):
        path.unlink()
    (sharded / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin.*safetensors"):
        load_checkpoint(sharded)


def test_weights_of_few_bits_are_refused(sharded):
    held = load_file(sharded / SECOND)
    name = next(iter(held))
    save_file(held | {name: held[name].to(torch.int8)}, sharded / SECOND)
    with pytest.raises(CheckpointError, match=f"{name} is stored as I8"):
        load_checkpoint(sharded)


def test_what_old_checkpoints_carry_besides_is_left_out(sharded):
    config, weights, tokenizer = tiny_llama(tied=True)
    save_checkpoint(sharded, config, weights=weights, tokenizer=tokenizer)
    path = sharded / "model.safetensors"
    more = {"lm_head.weight": torch.zeros(300, 48), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    save_file(load_file(path) | more, path)
    assert load_checkpoint(sharded)[1].keys() == weights.keys()


def test_weights_take_memory_only_while_they_are_held(tmp_path):
    """A checkpoint of 64 MB is read weight by weight without 64 MB ever being resident."""
    import resource
    import subprocess
    import sys

    save_file({f"w{i}": torch.randn(1024, 1024) for i in range(16)}, tmp_path / "model.safetensors")
    code = (
        "import sys, resource, pathlib; from outthink.engine.shards import read_weights\n"
        "weights = read_weights(pathlib.Path(sys.argv[1])); weights['w0'].sum()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert sum(float(weights[name].isfinite().all()) for name in weights) == 16\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(out.stdout) < 16 * 1024, f"{out.stdout} KiB more at the peak; {resource.getpagesize()} a page"
