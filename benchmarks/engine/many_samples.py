"""64 samples of one prompt of 1,024 tokens: our engine, transformers, llama.cpp, one after the other.

    python benchmarks/engine/many_samples.py [--shapes 15m,110m,500m,reasoner] [--dtypes float32,bfloat16] [--quick]

Every sample has the same fixed number of tokens in every engine, drawn at temperature 0.8 from the whole vocabulary.
"first" is the time until every sample has its first token, the rest is decoding; the best of the repeats counts.
transformers is timed for fewer decode steps at the larger shapes, and its time for all of them is the time of a step
times their number, which is kind to it: steps grow longer with the text.  The share of the peak is that of the
products and the attention a token needs, over the fastest product of matrices measured just before.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from llama_settings import fastest
from machine import circumstances, write
from peers import ask, options, result_name, versions
from shapes import SHAPES, attention_flops, config, folder, kv_bytes, matmul_parameters, prompts

SAMPLES, REPEATS, TEMPERATURE, SEED = 64, 3, 0.8, 7
ENGINES = ("ours", "llama.cpp", "transformers", "transformers continuous")


def measured(shape: str, dtype: str, chosen: Namespace) -> list[dict[str, Any]]:
    """Return a row for each engine: seconds, tokens a second over all and in decoding, and ours over each."""
    size, known = SHAPES[shape], config(shape, cache=chosen.cache)
    tokens, samples = (16 if chosen.quick else size.tokens), chosen.samples
    repeats = 1 if chosen.quick else REPEATS
    texts, ids = prompts(shape, count=1 + 2 * repeats, length=size.prompt, cache=chosen.cache)
    run = {"threads": chosen.threads, "wait": chosen.wait}
    room = (size.prompt + tokens + 16) * kv_bytes(known, dtype) * (samples + 2)
    job = {
        "kind": "many", "folder": str(folder(shape, dtype, cache=chosen.cache)), "dtype": dtype, "texts": texts,
        "prompts": ids, "samples": samples, "tokens": tokens, "temperature": TEMPERATURE, "seed": SEED,
        "options": {"rows": samples, "kv_bytes": 3 * room, "context": len(ids[0]) + tokens + 16},
    }  # fmt: skip
    peak = ask("peaks", {"dtype": dtype, "rows": [samples, 512]}, venv=None, **run)
    flops = 2 * matmul_parameters(known) + attention_flops(known, len(ids[0]) + tokens / 2)
    rows = []
    for engine in chosen.engines.split(","):
        said: dict[str, Any] = {"settings": {}}
        if engine == "ours":
            answer = ask("ours", job, venv=None, **run)
        elif engine == "llama.cpp":
            best, tried = fastest(shape, dtype, job, cache=chosen.cache, venv=chosen.venv, **run)
            said = {"settings": {k: v for k, v in best.items() if k != "file"}, "tried": tried}
            answer = best if "missing" in best else ask("llama_cpp_peer", {**job, **best}, venv=chosen.venv, **run)
        else:
            # Twice, the first time its memory has to grow; once where a run takes minutes and that does not show.
            few = {"prompts": ids[: 5 if size.steps >= tokens else 3], "steps": min(size.steps, tokens)}
            few["continuous"] = "continuous" in engine
            answer = ask("transformers_peer", {**job, **few}, venv=chosen.venv, **run)
        row = {"shape": shape, "dtype": dtype, "engine": engine, "samples": samples, "prompt": len(ids[0])}
        rows.append({**row, "tokens": tokens, **rates(answer, samples, tokens), **said})
        if "decode" in rows[-1] and "flops" in peak:
            for width, top in peak["flops"].items():
                rows[-1][f"share of peak, {width} rows"] = round(rows[-1]["decode"] * flops / top, 3)
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "tried"}), flush=True)
    ours = next((row for row in rows if row["engine"] == "ours" and "overall" in row), None)
    for row in rows:
        if ours and "overall" in row:
            row["ours over it"] = {part: round(ours[part] / row[part], 2) for part in ("overall", "decode")}
    return [*rows, {"shape": shape, "dtype": dtype, "peak": peak, "flops_per_token": flops}]


def rates(answer: dict[str, Any], samples: int, tokens: int) -> dict[str, Any]:
    """Return tokens a second from the seconds to the first tokens and to the last; a missing engine stays missing."""
    if "missing" in answer:
        return {"missing": answer["missing"]}
    first, steps = min(answer["first"]), answer.get("steps", tokens)
    # Ours times the first tokens in a run of their own: a slow one must not make its decoding look fast.
    decoding = (min(answer["whole"]) - first) / max(steps - 1, 1)
    whole = min(answer["whole"]) if steps == tokens else first + decoding * (tokens - 1)
    return {
        "first_seconds": round(first, 4), "seconds": round(whole, 4), "steps_timed": steps,
        "overall": round(samples * tokens / whole, 1), "decode": round(samples / decoding, 1),
        "runs": {part: [round(s, 4) for s in answer[part]] for part in ("first", "whole")},
        "prompt_tokens_computed": answer.get("computed"), "peak_bytes": answer.get("peak_bytes"),
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--shapes", default="15m,110m,500m,reasoner")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    chosen = parser.parse_args()
    about, rows = circumstances(threads=chosen.threads, wait=chosen.wait) | {"seed": SEED}, []
    about["peers"] = versions(chosen.venv)
    for shape in chosen.shapes.split(","):
        for dtype in chosen.dtypes.split(","):
            rows += measured(shape, dtype, chosen)
            # After each, so that a long run that is stopped leaves what it has.
            write(result_name(chosen, "many_samples"), about | {"rows": rows})


if __name__ == "__main__":
    main()
