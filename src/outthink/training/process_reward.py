"""Process reward models: the trunk of a language model, a scalar head, and labels on prefixes of solutions.

Two sources of labels.  `checked`: every token of a solution, 1 up to the first token that leaves the true
solution and 0 from there on; of the model's own samples and of the careless teacher.  `rolled_out`: every line end,
the share of Monte Carlo rollouts from there that reach the right answer (Wang et al. 2024, Math-Shepherd), which
needs a grader but no checker and gives a weaker, more ordinary reward model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from outthink.engine.checkpoint import REWARD_MODEL
from outthink.engine.llama import Llama
from outthink.tasks.word_problems import LEVELS, WordProblem, answer_of, generate, grade, solution
from outthink.tasks.word_story import Noise, tell
from outthink.training.batches import Document, batched
from outthink.training.optimizers import Optimizers, Rates
from outthink.training.rollouts import END_ID, sample
from outthink.training.tokenizer import line_end

# A judge meets its reasoner's rare mistakes where they count, on top of a ranking, so it has to see them often.
WORSE = Noise(role=0.5, receive=0.25, op=0.06, idle=0.3, operand=0.08, slip=0.08, skip=0.04)
_GENTLE = Rates(matrices=0.01, rest=1e-3, head=3e-3)  # the trunk already reads; it must not forget


@dataclass(frozen=True, slots=True)
class Marking:
    """A training of a reward model.

    problems: training problems (per run, over all levels) that the language model is sampled on.
    samples: solutions per problem; temperature: at which they, and rollouts, are drawn.
    rollouts: 0 for checked labels; else rollouts per line end, and the labels are Monte Carlo estimates.
    more_layers: how many layers the reward model has above those of its trunk.
    teacher: share of the documents that are fresh solutions of a teacher with `noise` (checked labels only).
    """

    problems: int = 2048
    samples: int = 4
    temperature: float = 1.0
    rollouts: int = 0
    more_layers: int = 0
    teacher: float = 0.6
    noise: Noise = WORSE
    steps: int = 2400
    tokens: int = 6144
    rates: Rates = _GENTLE
    seed: int = 1


def train_reward_model(
    plan: Marking,
    reasoner: Llama,
    *,
    tokenizer: Tokenizer,
    trunk: Llama | None = None,
    log: Callable[[str], None] = print,
    checkpoint: Callable[[Llama], None] = lambda model: None,
) -> Llama:
    """Return a reward model for the samples of `reasoner`, trained by `plan`.

    trunk: the model that it starts from; if None, `reasoner` itself. A trunk that solves the problems better than the
      reasoner judges it better: what it would have written itself is the measure.
    """
    marked = list((rolled_out if plan.rollouts else checked)(plan, reasoner, tokenizer, log))
    own = _shuffled(marked, Random(f"own {plan.seed}"))
    taught = _taught(plan, tokenizer)
    torch.manual_seed(plan.seed)
    model = reward_model_from(trunk if trunk is not None else reasoner, more=plan.more_layers)
    optimizers = Optimizers(model, plan.rates, warmup=30, hold=0.3)
    share = 0.0 if plan.rollouts else plan.teacher
    chance = Random(f"share {plan.seed}")
    batches = batched(
        lambda: [next(taught if chance.random() < share else own) for _ in range(plan.tokens // 12)],
        tokens=plan.tokens,
        seed=plan.seed,
    )
    start, total, seen = time.monotonic(), 0.0, 0
    for step in range(plan.steps):
        tokens, targets = next(batches)
        loss = label_loss(model, tokens, targets)
        loss.backward()
        optimizers.step(step / plan.steps)
        total, seen = total + loss.item(), seen + tokens.numel()
        if (step + 1) % 100 == 0:
            rate = seen / (time.monotonic() - start)
            log(f"step {step + 1}/{plan.steps}  loss {total / 100:.4f}  {seen / 1e6:.1f}M tokens  {rate:.0f} tokens/s")
            total = 0.0
        if (step + 1) % 500 == 0:
            checkpoint(model)
    return model


def reward_model_from(trunk: Llama, *, more: int = 0) -> Llama:
    """Return an untrained reward model with a copy of the weights of `trunk`, `more` layers on top, a head of zeros.

    What the trunk expects to be written next is known only above its last layer, one token before it is written: a
    judge of the same depth cannot compare the two. New layers begin as the identity.
    """
    config = trunk.config
    layers = config.num_hidden_layers
    model = Llama(replace(config, architecture=REWARD_MODEL, num_hidden_layers=layers + more))
    model.model.load_state_dict(trunk.model.state_dict(), strict=more == 0)
    for layer in model.model.layers[layers:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def label_loss(model: Llama, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy between rewards and `targets` in 0..1, over tokens whose target is not nan."""
    wanted = ~targets.isnan()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.hidden(tokens)
    scores = model.logits(hidden.float()[wanted])[:, 0]
    return F.binary_cross_entropy_with_logits(scores, targets[wanted])


def token_labels(prompt: list[int], written: list[int], *, true: list[int]) -> Document:
    """Return prompt and solution with a label on every solution token and on the last of the prompt.

    1 as long as `written` goes with `true`, 0 from the first other token on.
    """
    right = next((i for i, token in enumerate(written) if i >= len(true) or token != true[i]), len(written))
    labels = [1.0] * (1 + right) + [0.0] * (len(written) - right)
    return Document([*prompt, *written], [float("nan")] * (len(prompt) - 1) + labels)


def checked(plan: Marking, reasoner: Llama, tokenizer: Tokenizer, log: Callable[[str], None]) -> Iterator[Document]:
    """Yield the reasoner's own solutions of training problems with token labels."""
    for problem, prompt, samples in _own_samples(plan, reasoner, tokenizer, log):
        true = [*tokenizer.encode(solution(problem)).ids, END_ID]
        for written in samples:
            yield token_labels(prompt, written, true=true)


def rolled_out(plan: Marking, reasoner: Llama, tokenizer: Tokenizer, log: Callable[[str], None]) -> Iterator[Document]:
    """Yield the reasoner's own solutions of training problems with a Monte Carlo value at every line end.

    A finished solution has the value 1 or 0 of its answer.
    """
    newline = line_end(tokenizer)
    for batch in _in_chunks(_own_samples(plan, reasoner, tokenizer, log), 64):
        prefixes: dict[tuple[int, ...], int] = {}
        for index, (_, prompt, samples) in enumerate(batch):
            for written in samples:
                for end in _line_ends(written, newline)[:-1]:
                    prefixes.setdefault((*prompt, *written[:end]), index)
        drawn = sample(
            reasoner,
            [list(prefix) for prefix in prefixes],
            n=plan.rollouts,
            temperature=plan.temperature,
            seed=plan.seed + len(prefixes),
        )
        value = {
            prefix: sum(_right(batch[index][0], prefix[len(batch[index][1]) :], rest, tokenizer) for rest in rests)
            / plan.rollouts
            for (prefix, index), rests in zip(prefixes.items(), drawn, strict=True)
        }
        for problem, prompt, samples in batch:
            for written in samples:
                labels = [float("nan")] * (len(prompt) + len(written))
                for end in _line_ends(written, newline)[:-1]:
                    labels[len(prompt) + end - 1] = value[(*prompt, *written[:end])]
                for end in _line_ends(written, newline)[-1:]:
                    labels[len(prompt) + end - 1] = float(_right(problem, (), written, tokenizer))
                yield Document([*prompt, *written], labels)


def _right(problem: WordProblem, prefix: tuple[int, ...], rest: list[int], tokenizer: Tokenizer) -> bool:
    return grade(problem, answer_of(tokenizer.decode([*prefix, *rest])))


def _line_ends(tokens: list[int], newline: int) -> list[int]:
    return [index + 1 for index, token in enumerate(tokens) if token == newline]


def _own_samples(
    plan: Marking, reasoner: Llama, tokenizer: Tokenizer, log: Callable[[str], None]
) -> Iterator[tuple[WordProblem, list[int], list[list[int]]]]:
    per_level = plan.problems // len(LEVELS)
    start = time.monotonic()
    every = {level: generate("train", level, count=per_level, seed=plan.seed) for level in LEVELS}
    for at in range(0, per_level, 64):
        for level in LEVELS:
            asked = every[level][at : at + 64]
            prompts = [encoding.ids for encoding in tokenizer.encode_batch([problem.prompt for problem in asked])]
            drawn = sample(
                reasoner,
                prompts,
                n=plan.samples,
                temperature=plan.temperature,
                seed=plan.seed * 1_000_003 + at * 8 + level,
            )
            yield from zip(asked, prompts, drawn, strict=True)
        log(f"sampled {min(per_level, at + 64) * len(LEVELS)} problems  {time.monotonic() - start:.0f} s")


def _taught(plan: Marking, tokenizer: Tokenizer) -> Iterator[Document]:
    """Yield without end solutions of the careless teacher with token labels."""
    rng = Random(f"taught {plan.seed}")
    while True:
        told = [tell(rng, rng.choice(LEVELS), split="train", noise=plan.noise) for _ in range(256)]
        texts = [
            text
            for story in told
            for text in (story.prompt, _lines(story.written), _lines((*story.steps, f"# {story.answer}")))
        ]
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        for prompt, written, true in zip(ids[::3], ids[1::3], ids[2::3], strict=True):
            yield token_labels(prompt, [*written, END_ID], true=[*true, END_ID])


def _lines(lines: tuple[str, ...]) -> str:
    return "\n".join(lines) + "\n"


def _shuffled(documents: list[Document], rng: Random) -> Iterator[Document]:
    """Yield the documents without end, in a new order each time round."""
    while True:
        rng.shuffle(documents)
        yield from documents


def _in_chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
