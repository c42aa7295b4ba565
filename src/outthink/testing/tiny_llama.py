"""Random Llama models of any small shape, with a real byte-level tokenizer: real classes, no training."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from outthink.engine.checkpoint import REWARD_MODEL, Config
from outthink.engine.llama import Llama

END = "<|end|>"
_WORDS = "the cat sat on the mat.\nthe dog ate the rat,\n\nand then the cat ran. answer: 12\nanswer: 345 ünïcödé\n"


@cache
def tiny_tokenizer() -> Tokenizer:
    """Return a tokenizer of 300 tokens: END, all bytes, and merges that join words and line ends."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END], show_progress=False, initial_alphabet=alphabet, max_token_length=4
    )
    tokenizer.train_from_iterator([_WORDS] * 4, trainer)
    return tokenizer


def tiny_llama(
    *,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head: int = 16,
    hidden: int = 48,
    wide: int = 100,
    tied: bool = False,
    reward: bool = False,
    context: int = 128,
    seed: int = 0,
) -> tuple[Config, dict[str, torch.Tensor], Tokenizer]:
    """Return (config, weights, tokenizer) as `load_checkpoint` would.

    Weights are normal with the scale of a trained model, gains are around 1, and texts end now and then: the row of END
    in an untied head is four times as large as the others.
    """  # fmt: skip
    shape: dict[str, Any] = {"architecture": REWARD_MODEL} if reward else {}
    config = Config(
        vocab_size=tiny_tokenizer().get_vocab_size(), hidden_size=hidden, intermediate_size=wide,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head,
        max_position_embeddings=context, tie_word_embeddings=tied, eos_token_ids=(0,), **shape,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in Llama(config).state_dict().items():
        noise = torch.randn(like.shape, generator=generator)
        weights[name] = noise * like.shape[1] ** -0.5 if like.dim() == 2 else 1 + 0.2 * noise
    if "lm_head.weight" in weights:
        weights["lm_head.weight"][0] *= 4
    return config, weights, tiny_tokenizer()
