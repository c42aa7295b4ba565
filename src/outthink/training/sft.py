"""Supervised fine-tuning: a small Llama, new or trained before, learns to write the teacher's solutions.

Loss on solution tokens only; levels enter one after the other over the first part of training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from outthink.engine.checkpoint import Config
from outthink.engine.llama import Llama
from outthink.tasks.word_problems import LEVELS, lessons
from outthink.tasks.word_story import CARELESS, Noise
from outthink.training.batches import Document, batched
from outthink.training.optimizers import DEFAULT, Optimizers, Rates

MAX_LENGTH = 320


@dataclass(frozen=True, slots=True)
class Lessons:
    """A training of a language model; everything that changes the result, so a run repeats from it.

    until: share of the steps after which to stop, before rates have fallen: a start for other trainings.
    steps: optimizer steps of `tokens` tokens each, padding included.
    noise: the teacher's mistakes; None for a teacher who makes none.
    curriculum: share of the steps over which the highest level rises from 1 to 8.
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    wide: int = 352
    steps: int = 2600
    until: float = 1.0
    tokens: int = 6144
    noise: Noise | None = CARELESS
    curriculum: float = 0.15
    rates: Rates = DEFAULT
    seed: int = 0


def config_of(lessons: Lessons, tokenizer: Tokenizer) -> Config:
    """Return the shape of the model that `lessons` trains; token 0 ends a text."""
    return Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=lessons.width,
        intermediate_size=lessons.wide,
        num_hidden_layers=lessons.layers,
        num_attention_heads=lessons.heads,
        num_key_value_heads=lessons.kv_heads,
        head_dim=lessons.width // lessons.heads,
        max_position_embeddings=MAX_LENGTH,
        eos_token_ids=(0,),
    )


def train_language_model(
    plan: Lessons,
    tokenizer: Tokenizer,
    *,
    start: Llama | None = None,
    log: Callable[[str], None] = print,
    checkpoint: Callable[[Llama], None] = lambda model: None,
) -> Llama:
    """Return a language model trained by `plan`, from the weights of `start` or from random ones.

    `log` gets a line every 100 steps, `checkpoint` the unfinished model every 500.
    """
    torch.manual_seed(plan.seed)
    model = Llama(config_of(plan, tokenizer))
    if start is not None:
        model.load_state_dict(start.state_dict())
    optimizers = Optimizers(model, plan.rates, warmup=50, hold=0.5)
    school = _School(plan, tokenizer)
    batches = batched(school.draw, tokens=plan.tokens, seed=plan.seed)
    began, total, seen = time.monotonic(), 0.0, 0
    for step in range(round(plan.steps * plan.until)):
        school.progress = step / plan.steps
        tokens, targets = next(batches)
        loss = next_token_loss(model, tokens, targets)
        loss.backward()
        optimizers.step(school.progress)
        total, seen = total + loss.item(), seen + tokens.numel()
        if (step + 1) % 100 == 0:
            rate = seen / (time.monotonic() - began)
            log(f"step {step + 1}/{plan.steps}  loss {total / 100:.4f}  {seen / 1e6:.1f}M tokens  {rate:.0f} tokens/s")
            total = 0.0
        if (step + 1) % 500 == 0:
            checkpoint(model)
    return model


def next_token_loss(model: Llama, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the tokens whose target is not nan, each predicted from those before it."""
    wanted = ~targets[:, 1:].isnan()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(tokens[:, :-1])[wanted]
        logits = model.logits(hidden)
    return F.cross_entropy(logits.float(), tokens[:, 1:][wanted])


class _School:
    """The stream of documents; `progress` in 0..1 decides which levels are open."""

    def __init__(self, plan: Lessons, tokenizer: Tokenizer) -> None:
        self.progress = 0.0
        self._plan, self._tokenizer, self._rng = plan, tokenizer, Random(f"levels {plan.seed}")
        self._lessons = {level: lessons(level, noise=plan.noise, seed=plan.seed) for level in LEVELS}

    def draw(self) -> list[Document]:
        top = LEVELS[-1]
        if self.progress < self._plan.curriculum:
            top = 1 + int((top - 1) * self.progress / self._plan.curriculum)
        pairs = [next(self._lessons[self._rng.randint(1, top)]) for _ in range(self._plan.tokens // 16)]
        prompts = self._tokenizer.encode_batch([prompt for prompt, _ in pairs])
        solutions = self._tokenizer.encode_batch([solution for _, solution in pairs])
        return [document(p.ids, s.ids) for p, s in zip(prompts, solutions, strict=True)]


def document(prompt: list[int], solution: list[int]) -> Document:
    """Return prompt, solution and end token, with targets on the last two only."""
    answer = [*solution, 0]
    return Document([*prompt, *answer], [float("nan")] * len(prompt) + [1.0] * len(answer))
