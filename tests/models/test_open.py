"""Models by name."""

import json
import sys
from types import SimpleNamespace

import pytest

from outthink.core.budget import Budget, Card, Meter, weights
from outthink.core.cost import Cost
from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.models.cards import prices, read_cards
from outthink.models.open import EMBEDDED, OPENAI, card_of, open_model
from outthink.models.openai import OpenAI


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def place(backend: OpenAI):
    return backend._place


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("toy/t", "Did you mean 'toy/t1'"),
        ("openai", "Known: "),
        ("openai/", "unknown model"),
        ("opnai/gpt", "Did you mean 'openai/NAME'"),
        ("embedded/raisoner", "unknown model"),
        ("", "unknown model"),
        ("engine/no/such/folder", "no folder"),
    ],
)
def test_names_that_are_not_known_are_explained(spec, words):
    with pytest.raises(InvalidInput, match=words):
        open_model(spec)


def test_a_toy_is_opened_with_its_knobs():
    toy = open_model("toy/t1", slots=3)
    assert toy.room() == 3
    toy.close()


def test_the_server_and_the_key_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert place(open_model("openai/gpt")).url == OPENAI
    monkeypatch.setenv("OPENAI_BASE_URL", "http://10.0.0.5:8000/v1/")
    backend = open_model("openai/org/name")
    assert (place(backend).url, place(backend).key, backend.model) == ("http://10.0.0.5:8000/v1", "sk-1", "org/name")
    given = place(open_model("openai/m", base_url="https://h/api/v2", api_key="sk-2"))
    assert (given.url, given.key) == ("https://h/api/v2", "sk-2")


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000", "http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://0.0.0.0:9", "http://a.localhost/"],
)
def test_a_server_on_this_machine_needs_no_key(url):
    assert place(open_model("openai/m", base_url=url)).key == ""
    assert place(open_model("openai/m", base_url=url)).url.endswith("/v1")


def test_another_server_needs_a_key_or_the_word_that_it_needs_none(monkeypatch):
    with pytest.raises(InvalidInput, match="OPENAI_API_KEY"):
        open_model("openai/m")
    with pytest.raises(InvalidInput, match="OPENAI_API_KEY"):
        open_model("openai/m", base_url="http://10.0.0.5:8000/v1")
    assert place(open_model("openai/m", base_url="http://10.0.0.5:8000/v1", api_key="")).key == ""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    open_model("openai/m", base_url="http://10.0.0.5:8000/v1")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h/v1", "http://", "", "http://h:port/v1", "http://h/v1?x=1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidInput, match="http://localhost:8000/v1"):
        open_model("openai/m", base_url=url)


def test_a_server_cannot_be_deterministic():
    with pytest.raises(InvalidInput, match="cannot promise"):
        open_model("openai/m", base_url="http://localhost", deterministic=True)


def test_a_missing_extra_names_the_pip_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidInput, match=r"torch.*pip install 'outthink\[engine\]'"):
        open_model(f"engine/{tmp_path}")


def test_a_checkpoint_that_cannot_be_read_is_explained(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(InvalidInput, match=r"config\.json"):
        open_model(f"engine/{tmp_path}")


@pytest.mark.skipif(not (EMBEDDED / "reasoner" / "config.json").is_file(), reason="not trained yet")
def test_an_embedded_model_is_opened_by_its_name_and_by_its_folder():
    pytest.importorskip("torch")
    for spec in ("embedded/reasoner", f"engine/{EMBEDDED / 'reasoner'}"):
        backend = open_model(spec)
        request = Sample(Prefix("one\n"), spec, 0, max_tokens=4)
        ticket = SimpleNamespace(held=frozenset(), bound=Cost(), path="0")
        assert backend.bound(ticket, request).counts.keys() == {spec}
        assert card_of(spec).params == backend.card.params
        assert card_of(spec).attention == backend.card.attention
        backend.close()


def test_opening_a_server_imports_no_torch():
    import subprocess

    code = (
        "import sys; from outthink.models.open import open_model; open_model('openai/m', base_url='http://localhost'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestCards:
    def test_the_size_of_a_checkpoint_is_that_of_its_weights(self, tmp_path):
        pytest.importorskip("torch")
        import math

        from outthink.engine.checkpoint import Config, shapes

        config = Config(
            vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=4, tie_word_embeddings=False,
        )  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
        card = card_of(f"engine/{tmp_path}")
        assert card.params == sum(math.prod(shape) for shape in shapes(config).values())
        assert card.attention == 4 * 16 * 3
        assert card.prices is None

    def test_a_folder_without_a_usable_config_has_no_size(self, tmp_path):
        assert card_of(f"engine/{tmp_path}") == Card()
        (tmp_path / "config.json").write_text("{}")
        assert card_of(f"engine/{tmp_path}") == Card()

    def test_an_unknown_price_is_not_zero(self):
        of = weights("dollars", {"openai/m": card_of("openai/m")})
        with pytest.raises(InvalidInput, match="prices"):
            Meter("dollars", of).amount(Cost.of("openai/m", prompt=1))

    def test_prices_are_read_exactly_and_cached_tokens_are_cheaper(self, tmp_path):
        path = tmp_path / "cards.json"
        path.write_text(
            '{"openai/m": {"dollars_per_million": {"prompt": 0.15, "cached": 0.075, "output": 0.6}, "source": "list"},'
            ' "openai/n": {"params": 8e9, "attention": 3}}'
        )
        cards = read_cards(path)
        assert cards["openai/n"] == Card(params=8_000_000_000, attention=3)
        cost = Cost.of("openai/m", calls=1, prompt=1_000_000, cached=400_000, output=1_000_000)
        amount = Meter("dollars", weights("dollars", cards)).amount(cost)
        cap = Budget.parse("$0.72").cap("dollars")  # 0.6 M at 0.15, 0.4 M at 0.075, 1 M at 0.6
        assert amount == cap

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "not a file of price cards"),
            ("[]", "holds a list"),
            ('{"m": 3}', "JSON object"),
            ('{"m": {"price": 1}}', "unknown field"),
            ('{"m": {"dollars_per_million": 3}}', "each unit"),
            ('{"m": {"dollars_per_million": {"input": 3}}}', "unknown unit"),
            ('{"m": {"dollars_per_million": {"prompt": "cheap"}}}', "not a number"),
            ('{"m": {"dollars_per_million": {"prompt": -1}}}', "zero or more"),
            ('{"m": {"dollars_per_million": {"prompt": 0.0000001}}}', "6 decimals"),
            ('{"m": {"dollars_per_million": {"prompt": 1, "cached": 2}}}', "more than prompt"),
            ('{"m": {"params": 1.5}}', "whole number"),
            ('{"m": {"params": "many"}}', "whole number"),
        ],
    )
    def test_files_that_cannot_be_used_are_explained(self, tmp_path, text, words):
        path = tmp_path / "cards.json"
        path.write_text(text)
        with pytest.raises(InvalidInput, match=words):
            read_cards(path)

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(InvalidInput, match="no such file"):
            read_cards(tmp_path / "cards.json")

    def test_prices_on_a_command_line(self):
        assert prices("prompt=2.5, output=10") == {"prompt": 2_500_000, "output": 10_000_000}
        for wrong in ("", "prompt", "prompt=1,prompt=2", "prompt=x"):
            with pytest.raises(InvalidInput):
                prices(wrong)
