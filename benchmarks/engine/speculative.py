"""What a draft model gives: tokens a step, and the speed beside the same engine without one.

    python benchmarks/engine/speculative.py [--pairs reasoner,strangers,agreeing] [--quick]

reasoner: the embedded reasoner with `reasoner-small` as its draft, word problems at temperature 0.8.  strangers: random
models of 110M and 15M parameters, which have nothing in common: what drafting costs where it gives nothing.  agreeing:
the random 110M with all but two of its layers damped, and these two as its draft: what it gives where the draft is
nearly always right (made for that; no claim about trained models).  Each is measured without a draft and with 2 and 4
tokens of lookahead, in turns on the same machine, for 1 and 16 texts at a time.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import ROOT, circumstances, environment, write
from peers import options, result_name

MODELS = ROOT / "src" / "outthink" / "models" / "embedded"
PAIRS = ("reasoner", "strangers", "agreeing")
BATCHES, LOOKAHEADS = (1, 16), (2, 4)
SEED, TEMPERATURE = 11, 0.8
KEPT, DAMPED = 2, 0.02  # layers of the agreeing draft; what the outputs of the others are multiplied by


def pair(name: str, cache: Path) -> tuple[Any, Any]:
    """Return the checkpoints of a model and of its draft."""
    from shapes import folder

    from outthink.engine.checkpoint import load_checkpoint

    if name == "reasoner":
        model, draft = (load_checkpoint(MODELS / folder) for folder in ("reasoner", "reasoner-small"))
        return _endless(model), _endless(draft)
    config, weights, tokenizer = load_checkpoint(folder("110m", "float32", cache=cache))
    if name == "strangers":
        return (config, weights, tokenizer), load_checkpoint(folder("15m", "float32", cache=cache))
    damped, shallow = {}, {}
    for key, weight in weights.items():
        layer = int(key.split(".")[2]) if key.startswith("model.layers.") else -1
        out = key.endswith(("o_proj.weight", "down_proj.weight"))
        damped[key] = weight * DAMPED if out and layer >= KEPT else weight
        if layer < KEPT:
            shallow[key] = weight
    return (config, damped, tokenizer), (replace(config, num_hidden_layers=KEPT), shallow, tokenizer)


def _endless(checkpoint: Any) -> Any:
    """Return a checkpoint whose texts have the length that was asked for."""
    config, weights, tokenizer = checkpoint
    return replace(config, eos_token_ids=()), weights, tokenizer


def prefixes(name: str, count: int, cache: Path) -> list[Any]:
    from shapes import prompts

    from outthink.core.refs import Prefix

    shape = "reasoner" if name == "reasoner" else "110m"
    return [Prefix(text) for text in prompts(shape, count=count, length=64, cache=cache, seed=SEED)[0]]


def measured(engine: Any, roots: list[Any], *, tokens: int, batch: int, rounds: int) -> dict[str, Any]:
    """Serve `rounds` batches of texts, each of another prompt; return tokens a second and what drafting did."""
    from outthink.core.request import Sample
    from outthink.core.seeds import fold
    from outthink.engine.ahead import Speculation

    engine.generate([roots[-1].text], max_tokens=8)
    before = replace(engine.speculation) if engine.speculation else Speculation()
    wall, cpu, drawn = time.perf_counter(), time.process_time(), 0
    for turn in range(rounds):
        for i in range(batch):
            root = roots[turn * batch + i]
            engine.submit((turn, i), Sample(root, "m", fold(SEED, turn, i), tokens, temperature=TEMPERATURE))
        while len(engine):
            drawn += sum(done.generated for done in engine.step())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found: dict[str, Any] = {"tokens": drawn, "per_second": drawn / wall, "per_cpu_second": drawn / cpu}
    if engine.speculation:
        after = engine.speculation
        steps, accepted = after.steps - before.steps, after.accepted - before.accepted
        proposed = after.proposed - before.proposed
        found |= {"acceptance": accepted / max(1, proposed), "tokens_a_step": (steps + accepted) / max(1, steps),
                  "draft_positions": after.read - before.read}  # fmt: skip
    return found


def rows(name: str, *, cache: Path, quick: bool) -> list[dict[str, Any]]:
    from outthink.engine.engine import Engine

    model, draft = pair(name, cache)
    tokens = (32 if quick else 96) if name == "reasoner" else (12 if quick else 64)
    found = []
    for batch in BATCHES:
        rounds = {"reasoner": 8 if batch == 1 else 4}.get(name, 2 if batch == 1 else 1)
        roots = prefixes(name, rounds * batch + 1, cache)
        plain = None
        for lookahead in (0, *LOOKAHEADS):
            with_it = {"draft": draft, "lookahead": lookahead} if lookahead else {}
            engine = Engine(*model, kv_bytes=1 << 28, rows=batch, **with_it)
            row = {"pair": name, "batch": batch, "lookahead": lookahead}
            row |= measured(engine, roots, tokens=tokens, batch=batch, rounds=rounds)
            del engine
            gc.collect()
            plain = plain or row
            row |= {"over_plain": row["per_second"] / plain["per_second"]}
            row |= {"over_plain_cpu": row["per_cpu_second"] / plain["per_cpu_second"]}
            found.append({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--pairs", default=",".join(PAIRS))
    chosen = parser.parse_args()
    wanted = environment(threads=chosen.threads, wait=chosen.wait)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)
    import torch

    torch.set_num_threads(chosen.threads)
    record: dict[str, Any] = {"seed": SEED, "temperature": TEMPERATURE, "dtype": "float32", "rows": []}
    record |= circumstances(threads=chosen.threads, wait=chosen.wait)
    for name in chosen.pairs.split(","):
        record["rows"] += rows(name, cache=chosen.cache, quick=chosen.quick)
    write(result_name(chosen, "speculative"), record)


if __name__ == "__main__":
    main()
