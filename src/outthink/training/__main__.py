"""python -m outthink.training RECIPE --out DIR: train one of the embedded models on a CPU.

The process starts itself anew with settings of the C allocator (glibc keeps freed memory instead of returning it),
because short-lived tensors otherwise cost more time in page faults than the training itself: 11 thousand tokens
a second without, 25 thousand with, on one core.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


@click.group()
def main() -> None:
    """Train and measure the embedded models."""


@main.command("train")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the model to.")
@click.option(
    "--base", type=click.Path(path_type=Path), help="Folder of the model it starts from; the shipped one if not given."
)
@click.option("--steps", type=int, help="Optimizer steps instead of the recipe's.")
@click.option("--threads", type=int, default=1, show_default=True)
def train_command(name: str, out: Path, base: Path | None, steps: int | None, threads: int) -> None:
    """Train the recipe NAME."""
    import torch

    from outthink.training.recipes import train

    torch.set_num_threads(threads)
    start = time.monotonic()
    train(name, out, base=base, steps=steps, log=_say)
    _say(f"wrote {out} after {time.monotonic() - start:.0f} s, {time.process_time():.0f} s of processor time")


@main.command("evaluate")
@click.argument("reasoner", type=click.Path(path_type=Path))
@click.option("--reward", type=click.Path(path_type=Path), multiple=True, help="Reward models to judge its samples.")
@click.option("--split", default="validation", show_default=True)
@click.option("--limit", type=int, default=128, show_default=True, help="Problems, over levels 1 to 8.")
@click.option("--n", type=int, default=64, show_default=True, help="Samples per problem.")
@click.option("--temperature", type=float, default=0.8, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def evaluate_command(
    reasoner: Path, reward: tuple[Path, ...], split: str, limit: int, n: int, temperature: float, seed: int
) -> None:
    """Measure a language model, and reward models on its samples."""
    import torch

    from outthink.tasks.word_problems import problems
    from outthink.training.evaluate import attempt, reasoner_report, reward_report
    from outthink.training.recipes import read_model

    torch.set_num_threads(1)
    model, tokenizer = read_model(reasoner)
    attempts = attempt(
        model, tokenizer, problems=problems(split, limit=limit, seed=seed), n=n, temperature=temperature, seed=seed
    )
    _table(str(reasoner), reasoner_report(attempts))
    for folder in reward:
        judge, _ = read_model(folder)
        _table(str(folder), reward_report(judge, attempts, tokenizer=tokenizer))


def _table(title: str, report: dict[str, float]) -> None:
    _say(title)
    for name, value in report.items():
        _say(f"  {name:24s} {value:.3f}")


def _say(line: str) -> None:
    print(line, flush=True)


def _restart_with_allocator() -> None:
    if sys.platform == "linux" and any(os.environ.get(name) != value for name, value in _ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, "-m", "outthink.training", *sys.argv[1:]], os.environ | _ALLOCATOR)


if __name__ == "__main__":
    _restart_with_allocator()
    if len(sys.argv) > 1 and sys.argv[1].startswith("reasoner"):
        sys.argv.insert(1, "train")  # the usual use, in short: python -m outthink.training reasoner --out DIR
    main()
