"""llama.cpp by its C interface, one job on stdin, one line of JSON on stdout; the kinds of job are those of ours.py.

`many` reads the prompt once and gives it to every sequence by sequence copy.  `tree` either does the same at every
fork (`forks`: what someone writes who knows its interface), or is a server's loop: a request goes to the free slot
whose tokens have the longest beginning in common with it, which is kept, and the rest is read again.  flash, batch, kv,
inside (sampling within the graph): settings to be tried, the best is what counts.
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp as c

TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}  # numbers of ggml's types


class Sequences:
    """A model and its cache; `kept[s]` are the tokens that sequence s has in it."""

    def __init__(self, job: dict, *, count: int, cells: int) -> None:
        settings = c.llama_model_default_params()
        self.model = c.llama_model_load_from_file(job["file"].encode(), settings)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {job['file']}")
        p = c.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = (cells + 255) // 256 * 256, 2048, job.get("batch", 512), count
        p.n_threads = p.n_threads_batch = job["threads"]
        p.flash_attn_type, p.kv_unified = int(job.get("flash", 1)), True
        p.type_k = p.type_v = TYPES[job.get("kv", "float16")]
        self.chains = [self._chain(job.get("temperature", 0.8), seed) for seed in range(count)]
        if job.get("inside"):
            each = (c.llama_sampler_seq_config * count)()
            for s, chain in enumerate(self.chains):
                each[s].seq_id, each[s].sampler = s, ctypes.cast(chain, ctypes.c_void_p)
            p.samplers, p.n_samplers = each, count
        self.context = c.llama_init_from_model(self.model, p)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.memory = c.llama_get_memory(self.context)
        self.batch, self.room = c.llama_batch_init(2048, 0, 1), 2048
        self.kept: list[list[int]] = [[] for _ in range(count)]
        self.computed = 0

    @staticmethod
    def _chain(temperature: float, seed: int) -> object:
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if temperature:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(temperature))
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(seed))
        else:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
        return chain

    def read(self, pieces: dict[int, list[int]]) -> None:
        """Put the tokens of each piece behind what its sequence has, all in as few batches as hold them."""
        entries = [(s, token) for s, tokens in pieces.items() for token in tokens]
        for start in range(0, len(entries), self.room):
            self._decode(entries[start : start + self.room], wanted=False)

    def draw(self, last: dict[int, int]) -> dict[int, int]:
        """Put one token behind each sequence and return the next of each, drawn by its own chain."""
        self._decode(list(last.items()), wanted=True)
        return {s: c.llama_sampler_sample(self.chains[s], self.context, i) for i, s in enumerate(last)}

    def _decode(self, entries: list[tuple[int, int]], *, wanted: bool) -> None:
        b = self.batch
        b.n_tokens = len(entries)
        for i, (s, token) in enumerate(entries):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, len(self.kept[s]), 1, wanted
            b.seq_id[i][0] = s
            self.kept[s].append(token)
        if c.llama_decode(self.context, b):
            raise RuntimeError("llama.cpp could not decode a batch")
        self.computed += len(entries)

    def copy(self, source: int, target: int) -> None:
        self.cut(target, 0)
        c.llama_memory_seq_cp(self.memory, source, target, -1, -1)
        self.kept[target] = list(self.kept[source])

    def cut(self, s: int, length: int) -> None:
        c.llama_memory_seq_rm(self.memory, s, length, -1)
        del self.kept[s][length:]


def together(sequences: Sequences, last: dict[int, int], count: int) -> tuple[dict[int, list[int]], float]:
    """Draw `count` tokens of every sequence; return them and the time of the first."""
    drawn: dict[int, list[int]] = {s: [] for s in last}
    first = 0.0
    for step in range(count):
        last = sequences.draw(last)
        for s, token in last.items():
            drawn[s].append(token)
        if step == 0:
            first = time.perf_counter()
    return drawn, first


def many(job: dict) -> dict:
    n, tokens = job["samples"], job["tokens"]
    sequences = Sequences(job, count=n, cells=len(job["prompts"][0]) + n * (tokens + 1) + 64)
    first, whole = [], []
    for prompt, count in [(job["prompts"][0], 4), *((p, tokens) for p in job["prompts"][2::2])]:
        begun = time.perf_counter()
        sequences.computed = 0
        for s in range(n):
            sequences.cut(s, 0)
        sequences.read({0: prompt[:-1]})
        for s in range(1, n):
            sequences.copy(0, s)
        _, at = together(sequences, dict.fromkeys(range(n), prompt[-1]), count)
        first.append(at - begun)
        whole.append(time.perf_counter() - begun)
    # Of the last repeat: every sequence reads the prompt's last token itself, and its own but for the last.
    return {"first": first[1:], "whole": whole[1:], "computed": sequences.computed - n * (tokens - 1)}


def tree(job: dict) -> dict:
    plan, tokens, prompt = job["plan"], job["tokens"], job["prompts"][1]
    width = max(len(parents) for parents in plan)
    longest = len(prompt) + len(plan) * tokens
    slots = 2 * width if job["forks"] else width
    cells = longest + 2 * width * len(plan) * tokens if job["forks"] else width * longest
    sequences = Sequences(job, count=slots, cells=cells + 64)
    sequences.read({0: job["prompts"][0][:64]})
    sequences.cut(0, 0)
    sequences.computed, level = 0, [prompt]
    begun = time.perf_counter()
    for parents in plan:
        asked = [level[parent] for parent in parents]
        last = placed(sequences, asked, forks=job["forks"])
        drawn, _ = together(sequences, last, tokens)
        level = [text + drawn[s] for text, s in zip(asked, drawn, strict=True)]
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "computed": sequences.computed, "generated": sum(map(len, plan)) * tokens}


def placed(sequences: Sequences, asked: list[list[int]], *, forks: bool) -> dict[int, int]:
    """Give every text a sequence that has all of it but the last token; return those tokens by sequence, in order."""
    free, last = set(range(len(sequences.kept))), {}
    if forks:
        keepers = {tuple(kept): s for s, kept in enumerate(sequences.kept) if kept}
        sources = [keepers.get(tuple(text[:-1])) for text in asked]
        free -= {s for s in sources if s is not None}
        for text, source in zip(asked, sources, strict=True):
            slot = free.pop()
            if source is None:
                source = next((s for s in last if sequences.kept[s] == text[:-1]), None)
            if source is None:
                sequences.cut(slot, 0)
                sequences.read({slot: text[:-1]})
            else:
                sequences.copy(source, slot)
            last[slot] = text[-1]
        for slot in set(range(len(sequences.kept))) - set(last):
            sequences.cut(slot, 0)
        return last
    rest = {}
    for text in asked:
        slot = max(free, key=lambda s: (common(sequences.kept[s], text), -s))
        free.remove(slot)
        sequences.cut(slot, min(common(sequences.kept[slot], text), len(text) - 1))
        rest[slot], last[slot] = text[len(sequences.kept[slot]) : -1], text[-1]
    sequences.read(rest)
    return last


def common(kept: list[int], text: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(kept, text, strict=False)) if a != b), min(len(kept), len(text)))


def greedy(job: dict) -> dict:
    prompt = job["prompts"][0]
    sequences = Sequences({**job, "temperature": 0.0, "kv": job["dtype"]}, count=1, cells=len(prompt) + job["tokens"])
    sequences.read({0: prompt[:-1]})
    return {"greedy": together(sequences, {0: prompt[-1]}, job["tokens"])[0][0]}


@c.llama_log_callback
def quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    if level == 4:  # errors
        os.write(2, text)


c.llama_log_set(quiet, ctypes.c_void_p(0))
given = json.loads(sys.stdin.read())
print(json.dumps({"many": many, "tree": tree, "greedy": greedy}[given["kind"]](given)))
