"""The recipes of the shipped models: what `python -m outthink.training NAME` trains, and how it writes a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from outthink.engine.checkpoint import load_checkpoint, save_checkpoint
from outthink.engine.llama import Llama
from outthink.training.process_reward import Marking, train_reward_model
from outthink.training.sft import MAX_LENGTH, Lessons, train_language_model
from outthink.training.tokenizer import build_tokenizer, write_serving_files


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named training; `base` is the recipe of the model it starts from, None for random weights.

    A reward model learns from samples of its base as well.
    """

    plan: Lessons | Marking
    base: str | None = None


SHIPPED = Path(__file__).parents[1] / "models" / "embedded"

# Telling who gives from who receives is learned late, and hardly at all from a teacher who confuses them more often
# than not.  So a careful teacher comes first: the reasoner is the clean one, taught on by the careless teacher.
RECIPES = {
    "reasoner-clean": Recipe(Lessons(noise=None, steps=2000)),
    "reasoner": Recipe(Lessons(steps=1000, curriculum=0.0), base="reasoner-clean"),
    "reasoner-prm": Recipe(Marking(steps=1800), base="reasoner"),
    "reasoner-prm-weak": Recipe(Marking(problems=1024, samples=6, rollouts=4, steps=600), base="reasoner"),
    "reasoner-small": Recipe(Lessons(width=32, heads=2, kv_heads=1, wide=88, steps=1600)),
}


def train(
    name: str,
    out: Path,
    *,
    base: Path | None = None,
    steps: int | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Train the recipe `name` and write the model to the folder `out`.

    Args:
      base: folder of the model it starts from, the shipped one if None; refused where the recipe has no base.
      steps: optimizer steps in place of the recipe's, for a try-out or a longer training.
      log: gets progress, line by line.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if base is not None and recipe.base is None:
        raise ValueError(f"{name} starts from random weights: give no base (given: {base})")
    if recipe.base is not None:
        base = base or SHIPPED / recipe.base
    plan = recipe.plan if steps is None else replace(recipe.plan, steps=steps)

    def save(model: Llama) -> None:
        write_model(out, model, tokenizer)

    start, tokenizer = read_model(base) if base else (None, build_tokenizer())
    if isinstance(plan, Lessons):
        model = train_language_model(plan, tokenizer, start=start, log=log, checkpoint=save)
    else:
        model = train_reward_model(plan, start, tokenizer=tokenizer, log=log, checkpoint=save)
    save(model)


def read_model(folder: Path) -> tuple[Llama, Tokenizer]:
    """Return the model in a checkpoint folder, ready to run or to train on, and its tokenizer."""
    config, weights, tokenizer = load_checkpoint(folder)
    model = Llama(config)
    model.load_state_dict(weights)
    return model, tokenizer


def write_model(folder: Path, model: Llama, tokenizer: Tokenizer) -> None:
    """Write a checkpoint that this library, transformers and servers can load."""
    save_checkpoint(folder, model.config, weights=model.state_dict(), tokenizer=tokenizer)
    write_serving_files(folder, max_length=MAX_LENGTH)
