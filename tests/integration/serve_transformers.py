"""Outthink against a server that is not ours: transformers' `serve`, loading a checkpoint that is.

    pip install 'transformers[serving]'      here, or in an environment named by --server-python
    python tests/integration/serve_transformers.py [--server-python PYTHON] [--limit 8] [-o FILE]

Starts the server on 127.0.0.1, offline; runs `outthink solve` and `outthink compare` against it; recounts every token
with the checkpoint's own tokenizer; compares greedy texts with those of the engine; ends the server and asks again.
Prints one JSON document. The exit code is 1 if a check fails, 3 if the server cannot be started.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample
from outthink.core.runtime import Runtime
from outthink.core.trace import Served
from outthink.core.verbs import gather
from outthink.models.open import EMBEDDED, open_model
from outthink.tasks.word_problems import problems

PROMPT = "[1] Lara has 45 balls.\n[2] Lara next has 2 times as many balls.\nHow many balls does Lara have now?\n"
PATIENCE = 120


class CannotServe(Exception):
    """The server does not start; says why."""


@contextmanager
def serving(folder: Path, *, python: str) -> Iterator[str]:
    """Give the base URL of a server that has loaded `folder`; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-c", "from transformers.cli.transformers import main; main()"]
    command += ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            end = time.monotonic() + PATIENCE
            while not _up(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    said = " ".join(log.read()[-600:].split())
                    raise CannotServe(
                        f"`transformers serve` did not start; pip install 'transformers[serving]'? {said}"
                    )
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def _up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def outthink(*arguments: str) -> tuple[int, Any, str]:
    """Run the command line; return its exit code, its JSON document (None without), and what it said to people."""
    command = [sys.executable, "-c", "from outthink.cli import main; main()", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr.strip()


def recount(model: str, url: str, folder: Path, *, limit: int) -> dict[str, Any]:
    """Sample from the server and count every token again; compare greedy texts with the engine's."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    server = open_model(model, base_url=url, tokenizer=folder / "tokenizer.json")
    engine = open_model(f"engine/{folder}")
    runtime = Runtime({model: server, "engine": engine})
    prompts = [Prefix(problem.prompt) for problem in problems(limit=limit)]

    async def greedy(name: str) -> list[Draft]:
        return await gather(Sample(p, name, 0, max_tokens=64, temperature=0.0, stop=("#",)) for p in prompts)

    async def draws() -> list[Draft]:
        return await gather(
            Sample(prefix, model, seed, max_tokens=64, temperature=0.8) for prefix in prompts for seed in range(4)
        )

    there, here, run = runtime.run(greedy(model)), runtime.run(greedy("engine")), runtime.run(draws())
    assert run.trace is not None
    wrong = []
    for event in run.trace.events:
        if isinstance(event, Served):
            prompt = len(tokenizer.encode(event.request.prefix.text).ids)
            shown = len(tokenizer.encode(event.reply.text).ids)
            # The end of the text is a token too. If it was the last one allowed, this server calls that "length".
            output = shown + (event.reply.finish == "end" or shown == event.request.max_tokens - 1)
            if (event.cost.total("prompt"), event.cost.total("output")) != (prompt, output):
                wrong.append([event.cost.nonzero(), prompt, output, event.reply.text])
    texts = [(a.text, b.text) for a, b in zip(there.state, here.state, strict=True)]
    found = server.probe()
    server.close()
    engine.close()
    return {
        "probe": {name: str(getattr(found.can, name)) for name in found.can.__slots__}
        | {"notes": found.notes, "tokens": found.cost.tokens, "calls": found.cost.total("calls")},
        "samples": len(run.state),
        "different_texts": len({draft.text for draft in run.state}),
        "tokens_booked": run.cost.tokens,
        "exact": run.exact and not run.overrun,
        "miscounted": wrong,
        "greedy_texts": len(texts),
        "greedy_texts_equal_to_the_engine": sum(a == b for a, b in texts),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-python", default=sys.executable, help="a Python with transformers[serving]")
    parser.add_argument("--limit", type=int, default=8, help="problems")
    parser.add_argument("-o", type=Path, help="where the document goes; standard output if not given")
    given = parser.parse_args()
    out: dict[str, Any] = {"command": f"python tests/integration/{Path(__file__).name} --limit {given.limit}"}
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(shutil.copytree(EMBEDDED / "reasoner", Path(place) / "reasoner"))
            model = f"openai/{folder}"
            with serving(folder, python=given.server_python) as url:
                where = ["--model", model, "--base-url", url, "--max-tokens", "64"]
                judge = ["--verifier", "embedded/reasoner-prm"]
                out["recount"] = recount(model, url, folder, limit=given.limit)
                out["solve"] = outthink("solve", PROMPT, "--method", "majority", "--budget", "1k tokens", *where)
                out["solve_by_steps"] = outthink(
                    "solve", PROMPT, "--method", "rebase", "-b", "2k tokens", *where, *judge
                )
                methods = ["--methods", "greedy,majority,best_of_n,rebase", "--budgets", "512"]
                out["compare"] = outthink(
                    "compare", "word_problems", *methods, "--limit", str(given.limit), *where, *judge
                )
                out["unknown_model"] = outthink("solve", PROMPT, "-m", "openai/no/such/model", "--base-url", url)
            out["server_down"] = outthink("solve", PROMPT, *where)
    except CannotServe as error:
        print(error, file=sys.stderr)
        return 3
    out["checks"] = checks(out)
    out["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    out["versions"] = {name: version(name) for name in ("aiohttp", "tokenizers", "torch")} | {
        "python": platform.python_version(),
        "server": _server_version(given.server_python),
    }
    text = json.dumps(out, indent=2, ensure_ascii=False).replace(place, "/tmp/FOLDER")
    if given.o is None:
        print(text)
    else:
        given.o.write_text(text + "\n", encoding="utf-8")
    failed = [name for name, held in out["checks"].items() if not held]
    for name in failed:
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if failed else 0


def checks(out: dict[str, Any]) -> dict[str, bool]:
    """Return what has to hold, and whether it did."""
    counted, solved, stepped = out["recount"], out["solve"][1] or {}, out["solve_by_steps"][1] or {}
    rows = (out["compare"][1] or {"rows": []})["rows"]
    tokens = [each["cost"]["total"]["tokens"] for each in (solved, stepped) if each]
    return {
        "every token is counted as the tokenizer counts it": not counted["miscounted"] and counted["exact"],
        "samples differ": counted["different_texts"] > counted["samples"] // 4,
        "greedy texts are those of the engine": counted["greedy_texts_equal_to_the_engine"] == counted["greedy_texts"],
        "solve answers within its budget": out["solve"][0] == 0 and bool(solved.get("answer")) and tokens[0] <= 1000,
        "solve by steps answers within its budget": out["solve_by_steps"][0] == 0 and tokens[-1] <= 2000,
        "compare holds every budget": len(rows) == 4 and all(row["cost"]["most_tokens"] <= 512 for row in rows),
        "every cost is exact": all(row["cost"]["exact"] for row in rows)
        and bool(solved.get("exact") and stepped.get("exact")),
        "an unknown model is one paragraph": out["unknown_model"][0] == 1 and out["unknown_model"][2].count("\n") == 0,
        "a server that is down is one paragraph": out["server_down"][0] == 1
        and "Is the server running" in out["server_down"][2]
        and out["server_down"][2].count("\n") == 0,
    }


def _server_version(python: str) -> str:
    code = "import transformers; print('transformers', transformers.__version__)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
