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

    A reward model learns from samples of its base as well; `trunk` is the recipe whose weights it starts from, if that
    is another one.
    """

    plan: Lessons | Marking
    base: str | None = None
    trunk: str | None = None


SHIPPED = Path(__file__).parents[1] / "models" / "embedded"

# The start is trained on true solutions, at the full rate; reasoner-clean and reasoner part from there.  What the
# careless teacher writes is learned faster by a model that already reads and computes.
RECIPES = {
    "reasoner-start": Recipe(Lessons(noise=None, steps=2000, until=0.5)),
    "reasoner-clean": Recipe(Lessons(noise=None, steps=300, curriculum=0.0), base="reasoner-start"),
    "reasoner": Recipe(Lessons(steps=400, curriculum=0.0), base="reasoner-start"),
    "reasoner-prm": Recipe(Marking(problems=4096, more_layers=2, steps=1600), base="reasoner", trunk="reasoner-clean"),
    "reasoner-prm-weak": Recipe(Marking(problems=768, samples=4, rollouts=3, steps=400), base="reasoner"),
    "reasoner-small": Recipe(Lessons(width=32, heads=2, kv_heads=1, wide=88, steps=1000)),
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
      base: folder of the model it starts from; if None the shipped one, and if none is shipped it is trained first.
        Refused where the recipe has no base.
      steps: optimizer steps in place of the recipe's, for a try-out or a longer training.
      log: gets progress, line by line.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if base is not None and recipe.base is None:
        raise ValueError(f"{name} starts from random weights: give no base (given: {base})")
    plan = recipe.plan if steps is None else replace(recipe.plan, steps=steps)

    def save(model: Llama) -> None:
        write_model(out, model, tokenizer)

    start, tokenizer = _start(recipe, base, log)
    trunk = _start(Recipe(recipe.plan, base=recipe.trunk), None, log)[0] if recipe.trunk is not None else None
    save(_trained(plan, start, tokenizer, log, save, trunk=trunk))


def _start(recipe: Recipe, base: Path | None, log: Callable[[str], None]) -> tuple[Llama | None, Tokenizer]:
    """Return the model that a recipe starts from, None if from random weights, and the tokenizer."""
    if recipe.base is None:
        return None, build_tokenizer()
    folder = base or SHIPPED / recipe.base
    if base is not None or folder.is_dir():
        return read_model(folder)
    before = RECIPES[recipe.base]
    log(f"first the start: {recipe.base}")
    start, tokenizer = _start(before, None, log)
    return _trained(before.plan, start, tokenizer, log, lambda model: None), tokenizer


def _trained(
    plan: Lessons | Marking,
    start: Llama | None,
    tokenizer: Tokenizer,
    log: Callable[[str], None],
    save: Callable[[Llama], None],
    *,
    trunk: Llama | None = None,
) -> Llama:
    if isinstance(plan, Lessons):
        return train_language_model(plan, tokenizer, start=start, log=log, checkpoint=save)
    if start is None:
        raise ValueError("a reward model starts from a language model: give its recipe a base")
    return train_reward_model(plan, start, tokenizer=tokenizer, trunk=trunk, log=log, checkpoint=save)


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
