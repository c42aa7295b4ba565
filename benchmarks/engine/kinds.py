"""What weights of fewer bits cost in quality and bring in speed: float32, bfloat16, int8, int4.

    python benchmarks/engine/kinds.py [--threads 1] [--problems 128] [--quick]
    python benchmarks/engine/kinds.py --tables      writes the tables of docs/models.md from the stored results

Quality: true solutions of held-out word problems, read by the embedded language models with the projections of their
layers in each kind (embeddings and output layer stay as they are).  At every token of a solution: the error of the
logits over their own spread, the divergence from float32's distribution, and how often the likeliest token is the same.
Speed: one product of each shape and number of rows, the best of many, caches warm where the weights fit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import RESULTS, ROOT, circumstances, write
from torch import Tensor, nn

from outthink.engine.checkpoint import load_checkpoint
from outthink.engine.linear import linear
from outthink.engine.llama import Llama
from outthink.engine.quantised import GROUPS, Int4
from outthink.engine.size import KINDS
from outthink.tasks.word_problems import problems

MODELS = ("reasoner", "reasoner-clean", "reasoner-small")
MATRICES = {"1024 x 1024": (1024, 1024), "5632 x 1024": (5632, 1024), "32000 x 1024": (32000, 1024)}
ROWS = (1, 16, 64, 256, 1024)
START, END = "<!-- kinds:start -->", "<!-- kinds:end -->"


class Product(nn.Module):
    """A projection in one kind, in the place of a linear layer."""

    def __init__(self, weight: Tensor, kind: str) -> None:
        super().__init__()
        name, _, group = kind.partition("/")
        self.product = Int4(weight, group=int(group)) if group else linear(weight, kind=name)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


def model_in(name: str, kind: str) -> tuple[Llama, Any]:
    """Return an embedded model with the projections of its layers in `kind` ("int4/64": groups of 64)."""
    config, weights, tokenizer = load_checkpoint(ROOT / "src/outthink/models/embedded" / name)
    model = Llama(config)
    model.load_state_dict(dict(weights))
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for place, inner in list(part.named_children()):
                setattr(part, place, Product(inner.weight.detach(), kind))
    return model.eval(), tokenizer


@torch.inference_mode()
def logits_of(name: str, kind: str, count: int) -> Tensor:
    """Return the logits [tokens, vocabulary] before each token of the true solutions of `count` problems."""
    model, tokenizer = model_in(name, kind)
    found = []
    for problem in problems("heldout", limit=count):
        start = len(tokenizer.encode(problem.prompt).ids)
        text = problem.prompt + "".join(f"{step}\n" for step in problem.steps) + f"# {problem.answer}\n"
        ids = torch.tensor([tokenizer.encode(text).ids])
        found.append(model.logits(model.hidden(ids))[0, start - 1 : -1])
    return torch.cat(found)


def quality(name: str, kinds: list[str], count: int) -> list[dict[str, Any]]:
    exact = logits_of(name, "float32", count)
    sure = exact.log_softmax(-1)
    rows = []
    for kind in kinds:
        near = logits_of(name, kind, count)
        error = (near - exact).square().mean().sqrt() / exact.std()
        divergence = (sure.exp() * (sure - near.log_softmax(-1))).sum(-1).mean()
        same = (near.argmax(-1) == exact.argmax(-1)).double().mean()
        rows.append({"model": name, "kind": kind, "tokens": len(exact), "logit_error": round(float(error), 5),
                     "divergence_nats": round(float(divergence), 6), "same_token": round(float(same), 5)})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def speed(kind: str, matrix: str, seconds: float) -> list[dict[str, Any]]:
    out, width = MATRICES[matrix]
    generator = torch.Generator().manual_seed(0)
    product = linear(torch.randn(out, width, generator=generator), kind=kind)
    rows = []
    for count in ROWS:
        x = torch.randn(count, width, generator=generator)
        given = x if kind == "float32" else x.bfloat16()
        took = best(lambda given=given: product(given), seconds)
        rows.append({"kind": kind, "matrix": matrix, "rows": count, "microseconds": round(took * 1e6, 1),
                     "gflops": round(2 * count * out * width / took / 1e9, 1)})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def best(act: Callable[[], object], seconds: float) -> float:
    """Return the least time of `act` in `seconds` of trying, at least three times."""
    act()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


def tables(record: dict[str, Any]) -> str:
    """Return both tables in Markdown."""
    lines = ["| weights | model | error of logits | divergence, nats | same likeliest token |", "|---|---|---|---|---|"]
    for row in record["quality"]:
        lines.append(
            f"| {row['kind']} | {row['model']} | {row['logit_error']:.1%} | {row['divergence_nats']:.1g} | "
            f"{row['same_token']:.2%} |"
        )
    lines += [
        "",
        "| weights | matrix | " + " | ".join(f"{n} rows" for n in ROWS) + " |",
        "|---" * (2 + len(ROWS)) + "|",
    ]
    found = {(row["kind"], row["matrix"], row["rows"]): row["gflops"] for row in record["speed"]}
    for matrix in MATRICES:
        for kind in KINDS:
            lines.append(f"| {kind} | {matrix} | " + " | ".join(f"{found[kind, matrix, n]:.0f}" for n in ROWS) + " |")
    tokens = {row["tokens"] for row in record["quality"]}
    lines += ["", f"GFLOP/s on {record['threads']} thread(s), {record['machine']}, load {record['load_average']:.1f}; "
              f"{max(tokens):,} tokens a model; commit {record['commit']}."]  # fmt: skip
    return "\n".join(lines)


def write_tables() -> None:
    page = ROOT / "docs" / "models.md"
    text = page.read_text("utf-8")
    before, rest = text.split(START)
    behind = rest.split(END)[1]
    made = tables(json.loads((RESULTS / "kinds.json").read_text("utf-8")))
    page.write_text(f"{before}{START}\n{made}\n{END}{behind}", "utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--problems", type=int, default=128)
    options.add_argument("--quick", action="store_true", help="few problems, short timings")
    options.add_argument("--tables", action="store_true", help="only write the tables of docs/models.md")
    chosen = options.parse_args()
    if chosen.tables:
        write_tables()
        return
    torch.set_num_threads(chosen.threads)
    count, seconds = (16, 0.05) if chosen.quick else (chosen.problems, 0.4)
    kinds = [*KINDS[1:], *(f"int4/{group}" for group in GROUPS[1:])]
    record = {
        **circumstances(threads=chosen.threads, wait="inherited"),
        "quality": [row for name in MODELS for row in quality(name, kinds, count)],
        "speed": [row for kind in KINDS for matrix in MATRICES for row in speed(kind, matrix, seconds)],
    }
    print(write("quick_kinds" if chosen.quick else "kinds", record))


if __name__ == "__main__":
    main()
