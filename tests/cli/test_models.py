"""outthink models: what can be loaded, and what a folder needs."""

import json
import subprocess
import sys

import pytest

from outthink.cli.main import main
from outthink.models.open import EMBEDDED


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as leave:
            main(["models", *arguments])
        out, err = capsys.readouterr()
        return leave.value.code, out, err

    return call


def test_every_model_that_comes_with_it_is_listed(run):
    code, out, err = run("--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert {one["name"] for one in document["models"]} == {
        f"embedded/{path.parent.name}" for path in EMBEDDED.glob("*/config.json")
    }
    assert document["others"].keys() == {"engine/PATH", "openai/NAME", "toy/NAME"}
    assert all(one["params"] > 1000 and one["context"] > 0 and one["what"] for one in document["models"])
    kinds = {one["name"]: one["kind"] for one in document["models"]}
    assert (kinds["embedded/reasoner"], kinds["embedded/reasoner-prm"]) == ("language model", "reward model")


def test_the_list_is_for_people_too(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "embedded/reasoner" in out and "808k" in out and "engine/PATH" in out and "Qwen3ForCausalLM" in out


def test_listing_needs_no_torch():
    code = "import sys; from outthink.models.catalogue import shipped; shipped(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("form", ["{}", "engine/{}", "embedded/reasoner"])
def test_a_folder_that_can_be_loaded_says_what_it_needs(run, form):
    pytest.importorskip("torch")
    path = form.format(EMBEDDED / "reasoner")
    code, out, _ = run(path, "--json")
    document = json.loads(out)
    assert code == 0 and document["loadable"] and document["problem"] is None and document["chat_template"]
    weights, kv = document["weight_bytes"], document["kv_bytes_per_token"]
    assert weights["float32"] == 4 * (document["params"] + 547 * 128), "the tied output layer is laid out besides"
    assert weights["float32"] > weights["bfloat16"] > weights["int8"] > weights["int4"]
    assert kv["float32"] == 2 * 4 * 2 * 32 * 4 == 2 * kv["bfloat16"]
    assert "loadable" in run(path)[1] and "2.0 KiB" in run(path)[1]


def test_a_folder_that_cannot_be_loaded_says_why_and_fails(run, tmp_path):
    pytest.importorskip("torch")
    assert run(str(tmp_path))[0] == 1
    (tmp_path / "config.json").write_text((EMBEDDED / "reasoner/config.json").read_text())
    code, out, _ = run(str(tmp_path), "--json")
    document = json.loads(out)
    assert code == 1 and not document["loadable"] and "model.safetensors: no such file" in document["problem"]
    assert document["weight_bytes"]["float32"] > 3e6, "what it would need is known from its config.json"
    (tmp_path / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    code, out, _ = run(str(tmp_path))
    assert code == 1 and "not loadable" in out and "Qwen2ForCausalLM" in out


def test_no_such_folder_is_a_usage_error(run):
    code, out, err = run("/nowhere/at/all")
    assert (code, out) == (2, "") and err.startswith("error: no folder '/nowhere/at/all'")


def test_a_plan_says_what_it_needs_and_whether_it_fits(run):
    pytest.importorskip("torch")
    path = str(EMBEDDED / "reasoner")
    plan = json.loads(run(path, "--branches", "64", "--length", "256", "--shared", "128", "--json")[1])["plan"]
    assert plan["kv_bytes"]["float32"] == (8 + 64 * 8) * 16 * 2048 == 2 * plan["kv_bytes"]["int8"]
    assert "64 branches of 256 tokens, 128 shared" in run(path, "--branches=64", "--length=256", "--shared=128")[1]
    code, out, err = run(path, "--branches=64", "--length=256", "--kv-bytes", "16 MiB")
    assert (code, out) == (2, "") and "needs 32.0 MiB of KV for 64 branches x 256 tokens; have 16.0 MiB" in err
    assert run(path, "--branches=64", "--length=256", "--kv-bytes", "16MiB", "--dtype", "bfloat16")[0] == 0
    assert "no amount of memory" in run(path, "--kv-bytes", "much")[2]
