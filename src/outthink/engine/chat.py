"""Chat messages as the text that a model was trained to continue, by its own template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outthink.core.errors import InvalidInput
from outthink.engine.errors import CheckpointError

ROLES = ("system", "user", "assistant", "tool")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def render(
    folder: str | Path,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    begin: bool = True,
    **more: Any,
) -> str:
    """Return `messages` as text, by the chat template of the checkpoint in `folder`.

    The text has the special tokens that the template writes, spelled out.

    Args:
      messages: each with "role" (system, user, assistant or tool) and "content", oldest first.
      add_generation_prompt: end where the assistant begins to speak.
      begin: False leaves out the token that begins texts (bos_token), for tokenizers that put it there themselves.
      more: what this template knows besides, such as enable_thinking=False, date_string or tools.

    The template is looked for where transformers does: chat_template.jinja, chat_template.json, then
    tokenizer_config.json, where "default" is taken of several.  It may be anybody's: it runs in jinja2's sandbox, on
    plain values, and can read no file.  There is no clock either: a template that dates its prompts takes the date it
    has for such cases, or refuses.

    Raises CheckpointError, naming the folder, if there is no template, if it is broken, and with its own words if it
    refuses these messages; InvalidInput for a message without role or content.
    """
    folder = Path(folder)
    plain = json.loads(json.dumps({"messages": [dict(_checked(message)) for message in messages], **more}))
    source, special = _template(folder)
    special = {"tools": None, "documents": None} | (special if begin else special | {"bos_token": ""})
    try:
        return _compiled(source).render(special | plain | {"add_generation_prompt": add_generation_prompt})
    except jinja2.TemplateSyntaxError as error:
        raise CheckpointError(f"{folder}: its chat template is broken ({error}); copy the model's own") from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise CheckpointError(f"{folder}: its chat template does not take these messages: {error}") from error


def has_template(folder: str | Path) -> bool:
    """Return whether the checkpoint in `folder` can be talked to."""
    try:
        _template(Path(folder))
    except CheckpointError:
        return False
    return True


def _checked(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message.get("role") not in ROLES or "content" not in message:
        raise InvalidInput(f"message {dict(message)!r}: give it a role ({', '.join(ROLES)}) and a content")
    return message


def _template(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return (source, special tokens by the names that templates use)."""
    settings = _read(folder / "tokenizer_config.json")
    given = {name: settings.get(name) for name in _SPECIAL}
    special = {name: token["content"] if isinstance(token, dict) else token for name, token in given.items() if token}
    source: Any = None
    if (folder / "chat_template.jinja").is_file():
        source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    source = source or _read(folder / "chat_template.json").get("chat_template") or settings.get("chat_template")
    if isinstance(source, list):
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default")
    if not isinstance(source, str) or not source:
        raise CheckpointError(
            f"{folder}: this model has no chat template (chat_template.jinja, chat_template.json or chat_template in "
            "tokenizer_config.json): it continues plain text, so give it the prompt as text, or add a template"
        )
    return source, special


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy the model's own {path.name}") from error
    return data if isinstance(data, dict) else {}


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json  # jinja2's own escapes for HTML
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _to_json(value: Any, **options: Any) -> str:
    known = {name: options[name] for name in ("indent", "separators", "sort_keys") if name in options}
    return json.dumps(value, ensure_ascii=bool(options.get("ensure_ascii", False)), **known)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
