"""Our engine, one job: {kind, folder, dtype, texts, ...} on stdin, one line of JSON on stdout.

    many     `samples` draws of `tokens` tokens of a text: seconds to the first token of all, and to the last
    tree     levels of steps of `tokens` tokens, the parents of each level given by `plan`
    leaving  `samples` draws that leave one path of text at `depth` places
    race     draws of written-down lengths of which some are accepted, until the first accepted one; `abort` or not
    greedy   `tokens` greedy tokens, to compare with

Every answer has the tokens computed and drawn as the engine booked them, and the peak of the process's memory.
"""

import json
import resource
import sys
import time

import torch

job = json.loads(sys.stdin.read())
torch.set_num_threads(job["threads"])

from outthink.core.refs import Prefix  # noqa: E402
from outthink.core.request import Sample  # noqa: E402
from outthink.core.seeds import fold  # noqa: E402
from outthink.engine.engine import Engine  # noqa: E402

WARM = 8


def resident() -> int:
    """Return the bytes of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def drawn(prefixes: list[Prefix], tokens: int, *, seed: int) -> tuple[list[Prefix], dict[str, int]]:
    """Draw `tokens` tokens of each prefix together; return what they became and what was booked."""
    for i, prefix in enumerate(prefixes):
        engine.submit(i, Sample(prefix, "m", fold(seed, i), tokens, temperature=job.get("temperature", 0.8)))
    ended = {}
    while len(engine):
        for done in engine.step():
            assert done.error is None, done.error
            ended[done.key] = done
    booked = {
        "computed": sum(d.computed for d in ended.values()),
        "generated": sum(d.generated for d in ended.values()),
    }
    return [ended[i].reply.prefix for i in range(len(prefixes))], booked


def timed(prefixes: list[Prefix], tokens: int, *, seed: int) -> tuple[float, list[Prefix], dict[str, int]]:
    begun = time.perf_counter()
    grown, booked = drawn(prefixes, tokens, seed=seed)
    return time.perf_counter() - begun, grown, booked


def many() -> dict:
    """Two texts a repeat: one is drawn one token of, one all tokens of; neither was seen before."""
    roots = [Prefix(text) for text in job["texts"]]
    drawn([roots[0]] * job["samples"], min(WARM, job["tokens"]), seed=1)
    first, whole = [], []
    for one, all_ in zip(roots[1::2], roots[2::2], strict=True):
        first.append(timed([one] * job["samples"], 1, seed=2)[0])
        seconds, _, booked = timed([all_] * job["samples"], job["tokens"], seed=3)
        whole.append(seconds)
    return {"first": first, "whole": whole, **booked}


def tree() -> dict:
    drawn([Prefix(job["texts"][0])] * len(job["plan"][0]), WARM, seed=1)
    level, total = [Prefix(job["texts"][1])], {"computed": 0, "generated": 0}
    begun = time.perf_counter()
    for depth, parents in enumerate(job["plan"]):
        level, booked = drawn([level[parent] for parent in parents], job["tokens"], seed=depth)
        total = {name: total[name] + booked[name] for name in total}
    return {"seconds": time.perf_counter() - begun, **total}


def leaving() -> dict:
    """The words of the text, cut into `depth` pieces; draw i goes on from the end of piece i mod depth."""
    warm, words = Prefix(job["texts"][0]), job["texts"][1].split(" ")[:-1]
    drawn([warm] * job["samples"], WARM, seed=1)
    size, path = len(words) // job["depth"], []
    for start in range(0, size * job["depth"], size):
        piece = "".join(f"{word} " for word in words[start : start + size])
        path.append(path[-1].extend(piece) if path else Prefix(piece))
    reading, _, booked = timed([path[-1]], 1, seed=1)
    leaves = [path[i % job["depth"]] for i in range(job["samples"])]
    seconds, _, more = timed(leaves, job["tokens"], seed=2)
    return {"reading": reading, "seconds": seconds, "computed": booked["computed"] + more["computed"]}


def race() -> dict:
    """Sums over all problems: tokens drawn, and those of samples that ended up to the decision."""
    drawn([Prefix(job["texts"][0])] * job["samples"], WARM, seed=1)
    total, began, waited = {"generated": 0, "useful": 0}, time.perf_counter(), 0.0
    for text, problem in zip(job["texts"][1:], job["problems"], strict=True):
        prefix, started, decided = Prefix(text), time.perf_counter(), False
        for i, length in enumerate(problem["lengths"]):
            engine.submit(i, Sample(prefix, "m", i, length))
        while len(engine):
            ended = engine.step()
            count = sum(done.generated for done in ended)
            total["generated"] += count
            total["useful"] += 0 if decided else count
            if not decided and any(problem["accepted"][done.key] for done in ended):
                decided = True
                waited += time.perf_counter() - started
                for i in range(len(problem["lengths"]) if job["abort"] else 0):
                    engine.cancel(i)
    return {**total, "seconds": time.perf_counter() - began, "seconds_to_decision": waited}


def greedy() -> dict:
    engine.submit(0, Sample(Prefix(job["texts"][0]), "m", 0, job["tokens"], temperature=0.0))
    while True:
        for done in engine.step():
            return {"greedy": list(done.reply.tokens)}


before = resident()
engine = Engine.load(job["folder"], dtype=job["dtype"], **job.get("options", {}))
answer = {"many": many, "tree": tree, "leaving": leaving, "race": race, "greedy": greedy}[job["kind"]]()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({**answer, "peak_bytes": peak, "before_bytes": before}))
