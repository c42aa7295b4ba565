"""Chat templates: rendered as transformers does, from all places where they are kept, and nobody's code runs."""

import json
from pathlib import Path

import pytest

import outthink.models
from outthink.core.errors import InvalidInput
from outthink.engine.chat import has_template, render
from outthink.engine.errors import CheckpointError
from outthink.testing.tiny_llama import tiny_tokenizer

MARKED = (
    "{%- if messages[0].role == 'system' %}\n<<{{ messages[0].content | trim }}>>\n{%- endif %}\n"
    "{% for message in messages %}\n    {% if message['role'] == 'system' %}\n        {% continue %}\n    {% endif %}\n"
    "<|{{ message.role }}|>{{ message.content }}{{ eos_token }}\n{% endfor %}\n"
    "{% if tools %}{{ tools | tojson }}{% endif %}\n{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% set ns = namespace(text='[' ~ message.content ~ ']') %}{{ ns.text }}{% endfor %}"
)
TALK = [{"role": "system", "content": " be short "}, {"role": "user", "content": "1 < 2 & 'so'?"},
        {"role": "assistant", "content": "yes\nno"}, {"role": "user", "content": "ünïcödé"}]  # fmt: skip


def keep(folder, **settings):
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "bos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(base | settings))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(("template", "talk"), [(MARKED, TALK), (MARKED, TALK[1:2]), (ALTERNATING, TALK[1:])])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_text_is_that_of_transformers(tmp_path, template, talk, prompt):
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(keep(tmp_path, chat_template=template))
    wanted = peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt)
    assert render(tmp_path, talk, add_generation_prompt=prompt) == wanted
    tools = [{"type": "function", "function": {"name": "f", "description": "<é>"}}]
    wanted = peer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt, tools=tools)
    assert render(tmp_path, talk, add_generation_prompt=prompt, tools=tools) == wanted


def test_a_template_is_found_wherever_it_is_kept(tmp_path):
    keep(tmp_path, chat_template=[{"name": "other", "template": "no"}, {"name": "default", "template": "config"}])
    assert render(tmp_path, TALK) == "config" and has_template(tmp_path)
    (tmp_path / "chat_template.json").write_text('{"chat_template": "json"}')
    assert render(tmp_path, TALK) == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja {{ eos_token }}")
    assert render(tmp_path, TALK) == "jinja <|end|>"


def test_the_token_that_begins_texts_can_be_left_to_the_tokenizer(tmp_path):
    keep(tmp_path, chat_template=ALTERNATING, bos_token={"content": "<s>", "special": True})
    assert render(tmp_path, TALK[1:2]) == "<s>[1 < 2 & 'so'?]"
    assert render(tmp_path, TALK[1:2], begin=False) == "[1 < 2 & 'so'?]"


def test_without_a_template_the_error_says_what_to_do(tmp_path):
    keep(tmp_path)
    with pytest.raises(CheckpointError, match=r"no chat template.*plain text"):
        render(tmp_path, TALK)
    assert not has_template(tmp_path) and not has_template(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("template", "talk", "message"),
    [
        (ALTERNATING, TALK, "take turns"),
        ("{% for %}", TALK, "broken"),
        ("{{ messages[9].content.x }}", TALK, "does not take"),
        ("{{ strftime_now('%Y') }}", TALK, "strftime_now"),
        ("{{ ''.__class__.__mro__ }}", TALK, "unsafe"),
        ("{{ messages.append(1) }}", TALK, "unsafe|safely"),
        ("{% include '/etc/passwd' %}", TALK, "does not take"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path, template, talk, message):
    keep(tmp_path, chat_template=template)
    with pytest.raises(CheckpointError, match=message):
        render(tmp_path, talk)


@pytest.mark.parametrize("message", [{"role": "robot", "content": ""}, {"role": "user"}, {"content": "x"}])
def test_a_message_has_a_role_and_a_content(tmp_path, message):
    with pytest.raises(InvalidInput, match=r"role .*content"):
        render(keep(tmp_path, chat_template="x"), [message])


def test_the_shipped_models_take_a_message_as_their_prompt():
    folder = Path(outthink.models.__file__).parent / "embedded/reasoner"
    assert render(folder, [{"role": "user", "content": "[1] Ben has 52 cups.\n"}]) == "[1] Ben has 52 cups.\n"
