"""What the smoke run of .ci/run asks, and what it expects of the answers.

python .ci/expect.py prompt                              print a word problem
python .ci/expect.py results PAPERS SOLVE COMPARE        check the three JSON documents; says what is wrong
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def prompt() -> str:
    from outthink.tasks.word_problems import generate

    return generate("heldout", 2, count=1, seed=1)[0].prompt


def faults(papers: Any, solve: Any, compare: Any) -> list[str]:
    """Return what is wrong with the three documents, [] if nothing is."""
    out = []
    names = {paper["name"].split("/")[-1] for paper in papers["papers"]}
    if not {"greedy", "majority", "best_of_n"} <= names:
        out.append(f"papers: a baseline is missing from {sorted(names)}")
    if solve["answer"] is None:
        out.append(f"solve: no answer, stopped because {solve['stopped']!r}")
    out += [f"solve: {text}" for text in overspent(solve["cost"]["total"], 1000)]
    if len(compare["rows"]) != 4:
        out.append(f"compare: {len(compare['rows'])} rows, not two methods at two budgets")
    for row in compare["rows"]:
        if row["n"] != 4 or not 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1:
            out.append(f"compare: impossible row {row}")
        out += [f"compare: {text}" for text in overspent(row["cost"]["total"], 4 * 512)]
    return out


def overspent(total: dict[str, int], cap: int) -> list[str]:
    tokens = total["prompt_tokens"] + total["output_tokens"]
    return [] if 0 < tokens <= cap else [f"{tokens} tokens, expected between 1 and {cap}"]


if __name__ == "__main__":
    if sys.argv[1] == "prompt":
        print(prompt())
    else:
        wrong = faults(*(json.loads(Path(name).read_text("utf-8")) for name in sys.argv[2:]))
        print("\n".join(wrong) or "the main job works")
        sys.exit(bool(wrong))
