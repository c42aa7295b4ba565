"""The tokenizer of the embedded models: a small byte-level BPE that loses nothing.

Words are cut so that a name is an initial and an ending, whether or not training saw it; a digit is one token
(a space before it included); a citation such as "[12]" is one token; a line end is one token, with the full
stop or question mark before it.  So the tokens of a prompt and of each solution line do not depend on what follows.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from outthink.tasks.word_problems import LEVELS, lessons

END = "<|end|>"
_PIECES = r"\[\d{1,2}\]| ?\d| ?(?:He|She|How)\b| ?[A-Z]| ?[a-z]+|[.?]?\n|[^\sA-Za-z\d]|\s"
# Chat servers insist on a template; this one makes the user's content the prompt, unchanged.
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer(vocab_size: int = 560, *, seed: int = 0) -> Tokenizer:
    """Return a tokenizer of at most `vocab_size` tokens, fitted to lessons without mistakes; END is token 0."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (prompt + solution for level in LEVELS for prompt, solution in islice(lessons(level, seed=seed), 500))
    citations = ("".join(f"[{n}]" for n in range(1, 21)) for _ in range(500))
    tokenizer.train_from_iterator((*texts, *citations), trainer)
    return tokenizer


def line_end(tokenizer: Tokenizer) -> int:
    """Return the token of a lone line end, with which every line of a solution ends."""
    (token,) = tokenizer.encode("\n").ids
    return token


def write_serving_files(folder: str | Path, *, max_length: int) -> None:
    """Write tokenizer_config.json and generation_config.json to `folder`, for transformers and for servers."""
    folder = Path(folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "bos_token": None,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    generation = {"eos_token_id": 0, "pad_token_id": 0, "do_sample": True, "temperature": 0.8}
    for name, data in (("tokenizer_config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(data, indent=2) + "\n")
