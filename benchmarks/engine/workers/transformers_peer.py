"""transformers, one job on stdin, one line of JSON on stdout; the kinds of job are those of ours.py.

`many` draws with generate(num_return_sequences=samples), or with `continuous` by its continuous batching.  `tree` reads
every text again at every level, in one batch a level, which is what a search over generate does.  With `steps` fewer
than `tokens` only that many tokens are drawn, and the answer says so.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.utils import logging

PAGE = 256  # its own default

job = json.loads(sys.stdin.read())
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
logging.set_verbosity_error()
model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=getattr(torch, job["dtype"])).eval()
model.generation_config = GenerationConfig(pad_token_id=0)


class Clock:
    """Notes when each token was drawn; ends nothing."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, tokens: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        self.at.append(time.perf_counter())
        return torch.zeros(len(tokens), dtype=torch.bool)


def drawn(rows: torch.Tensor, count: int, *, n: int = 1, clock: Clock | None = None) -> torch.Tensor:
    return model.generate(
        rows, attention_mask=torch.ones_like(rows), do_sample=True, temperature=job.get("temperature", 0.8), top_k=0,
        top_p=1.0, num_return_sequences=n, max_new_tokens=count, stopping_criteria=[clock] if clock else None,
    )  # fmt: skip


def many() -> dict:
    if job.get("continuous"):
        return continuous()
    steps = min(job.get("steps", job["tokens"]), job["tokens"])
    drawn(torch.tensor([job["prompts"][0][:16]]), 2, n=job["samples"])
    first, whole = [], []
    for prompt in job["prompts"][2::2]:
        clock, begun = Clock(), time.perf_counter()
        drawn(torch.tensor([prompt]), steps, n=job["samples"], clock=clock)
        first.append(clock.at[0] - begun)
        whole.append(clock.at[-1] - begun)
    return {"first": first, "whole": whole, "steps": steps, "computed": job["samples"] * len(prompt)}


def continuous() -> dict:
    """Its own clock, from the request's arrival, so that starting its thread does not count."""
    steps = min(job.get("steps", job["tokens"]), job["tokens"])
    settings = GenerationConfig(
        do_sample=True, temperature=job.get("temperature", 0.8), top_k=0, num_return_sequences=job["samples"],
        max_new_tokens=steps, pad_token_id=0, eos_token_id=-1,
    )  # fmt: skip
    pages = (len(job["prompts"][0]) + steps) // PAGE + 1
    # Twice what the samples would take without sharing a page of the prompt: room is not what it should lack.
    room = ContinuousBatchingConfig(page_size=PAGE, num_blocks=2 * job["samples"] * pages, max_batch_tokens=2048)
    first, whole = [], []
    for prompt in job["prompts"][::2]:
        done = model.generate_batch(
            [prompt], generation_config=settings, continuous_batching_config=room, progress_bar=False,
            record_timestamps=True,
        ).values()  # fmt: skip
        if len(done) != job["samples"] or {len(each.generated_tokens) for each in done} != {steps}:
            raise RuntimeError(f"continuous batching: {next((e.error for e in done if e.error), 'texts are missing')}")
        begun = min(each.created_time for each in done)
        first.append(max(each.timestamps[0] for each in done) - begun)
        whole.append(max(each.timestamps[-1] for each in done) - begun)
    return {"first": first, "whole": whole, "steps": steps}


def tree() -> dict:
    drawn(torch.tensor([job["prompts"][0][:16]]), 2, n=4)
    level, computed, generated = torch.tensor([job["prompts"][1]]), 0, 0
    begun = time.perf_counter()
    for parents in job["plan"]:
        rows = level[torch.tensor(parents)]
        level = drawn(rows, job["tokens"])
        computed, generated = computed + rows.numel(), generated + level.numel() - rows.numel()
    return {"seconds": time.perf_counter() - begun, "computed": computed, "generated": generated}


def greedy() -> dict:
    prompt = job["prompts"][0]
    out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=job["tokens"])
    return {"greedy": out[0, len(prompt) :].tolist()}


# Continuous batching runs in a thread of its own, where inference mode of this one would be in its way.
with torch.inference_mode(not job.get("continuous")):
    print(json.dumps({"many": many, "tree": tree, "greedy": greedy}[job["kind"]]()))
