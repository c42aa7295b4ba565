"""How fast the engine generates and scores, and what it does to transformers.

    python benchmarks/engine/embedded.py [--model FOLDER] [--threads N] [--quick] [-o FILE]

Word problems of the held-out split, drafts at temperature 0.8 that end when the model ends them.  `concurrent` requests
are in flight at any time, each with a prompt of its own or 16 to a prompt; four times as many are served.  Prefill is
included, every token drawn is counted, and the numbers are tokens per second of the wall clock and of processor time
(the one to look at when others use the machine).  transformers generates the same number of tokens for a batch of the
same prompts.  Runs itself again with malloc told to keep its memory, without which page faults take much of the time,
and OpenMP told to sleep while it waits, without which two threads on busy cores are twenty times slower than one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = ROOT / "benchmarks" / "results" / "engine" / "embedded.json"
MODELS = ROOT / "src" / "outthink" / "models" / "embedded"
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip
SEED, TEMPERATURE, MAX_TOKENS = 7, 0.8, 128


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, default=MODELS / "reasoner")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--quick", action="store_true", help="64 concurrent only, and no transformers")
    options.add_argument("-o", "--output", type=Path, default=RESULT)
    chosen = options.parse_args()
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], ENVIRONMENT | os.environ)
    import torch

    torch.set_num_threads(chosen.threads)
    rows = []
    for concurrent in (64,) if chosen.quick else (1, 16, 64, 256):
        for shared in (1, 16) if concurrent > 1 else (1,):
            for deterministic in (False, True):
                rows.append(generating(chosen.model, concurrent, shared=shared, deterministic=deterministic))
                print(json.dumps(rows[-1]), flush=True)
    judge = chosen.model.parent / f"{chosen.model.name}-prm"
    if judge.is_dir():
        rows.append(scoring(judge, 256))
        print(json.dumps(rows[-1]), flush=True)
    if not chosen.quick:
        rows.append(transformers_generating(chosen.model, 256))
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "command": "python benchmarks/engine/embedded.py " + " ".join(sys.argv[1:]),
        "rows": rows,
    } | circumstances(chosen.model, chosen.threads)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def prompts(count: int) -> list[str]:
    from outthink.tasks.word_problems import LEVELS, generate

    each = -(-count // len(LEVELS))
    problems = [problem for level in LEVELS for problem in generate("heldout", level, count=each, seed=SEED)]
    return [problems[(i * 13) % len(problems)].prompt for i in range(count)]


def generating(folder: Path, concurrent: int, *, shared: int, deterministic: bool) -> dict[str, Any]:
    from outthink.core.refs import Prefix
    from outthink.core.request import Sample
    from outthink.engine.engine import Engine

    engine = Engine.load(folder, deterministic=deterministic)
    total = max(4, 4 * concurrent)
    roots = [Prefix(prompt) for prompt in prompts(-(-total // shared))]
    waiting = [Sample(roots[i // shared], "m", i, MAX_TOKENS, temperature=TEMPERATURE) for i in range(total)]
    engine.generate(["warm up"], n=min(8, concurrent), max_tokens=8)

    def work() -> int:
        tokens, sent = 0, 0
        while sent < total or len(engine):
            while sent < total and len(engine) < concurrent:
                engine.submit(sent, waiting[sent])
                sent += 1
            tokens += sum(done.generated for done in engine.step())
        return tokens

    what = {"what": "generate", "concurrent": concurrent, "per_prompt": shared, "deterministic": deterministic}
    return what | timed(work)


def scoring(folder: Path, concurrent: int) -> dict[str, Any]:
    """Score solutions step by step, 16 to a prompt; tokens are those of the solutions and of each prompt once."""
    from outthink.core.refs import Prefix
    from outthink.core.request import Score
    from outthink.engine.engine import Engine

    engine = Engine.load(folder)
    roots = [Prefix(prompt) for prompt in prompts(concurrent // 16)]
    texts = [root.extend(f"[{i}] 12+{i}={12 + i}\n" * 5 + f"# {i}\n") for root in roots for i in range(16)]

    def work() -> int:
        for i, text in enumerate(texts):
            engine.submit(i, Score(text, "m", step="\n"))
        tokens = 0
        while len(engine):
            tokens += sum(done.computed for done in engine.step())
        return tokens

    return {"what": "score", "concurrent": concurrent, "per_prompt": 16} | timed(work)


def transformers_generating(folder: Path, concurrent: int) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = tokenizer(prompts(concurrent), return_tensors="pt", padding=True)
    torch.manual_seed(SEED)

    def work() -> int:
        length = batch["input_ids"].shape[1]
        out = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=True,
            temperature=TEMPERATURE, max_new_tokens=MAX_TOKENS, pad_token_id=model.config.eos_token_id,
        )[:, length:]  # fmt: skip
        ended = (out == model.config.eos_token_id).int().cumsum(1)
        return int((ended - (out == model.config.eos_token_id).int() == 0).sum())

    with torch.inference_mode():
        return {"what": "transformers generate", "concurrent": concurrent, "per_prompt": 1} | timed(work)


def timed(work: Callable[[], int]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"tokens": tokens, "tokens_per_second": round(tokens / wall), "tokens_per_cpu_second": round(tokens / cpu)}


def circumstances(model: Path, threads: int) -> dict[str, Any]:
    import tokenizers
    import torch

    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT)
    load = os.getloadavg()
    return {
        "model": model.name, "threads": threads, "seed": SEED, "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "load_average": load,
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "tokenizers": tokenizers.__version__},
    }  # fmt: skip


if __name__ == "__main__":
    main()
