"""Results of claim tests: a small file for each paper, and what it says in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..core.errors import InvalidInput

FOLDER = Path("benchmarks/results/claims")
"""Where claim tests write, from the root of the repository: sampling.monkeys.json and so on."""


@dataclass(frozen=True, slots=True)
class Part:
    """One inequality of a claim. `measured` is the sentence with the numbers; `numbers` the same for machines."""

    claim: str
    holds: bool
    measured: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a claim test found. `setting`: model, task, problems, seeds, command; whatever it takes to do it again."""

    paper: str
    setting: str
    parts: Sequence[Part]

    @property
    def status(self) -> str:
        """ "holds", or "does not hold here: " and what was measured where it does not."""
        failed = [part for part in self.parts if not part.holds]
        if not failed:
            return "holds"
        some = f" ({len(failed)} of {len(self.parts)} parts)" if len(failed) < len(self.parts) else ""
        return f"does not hold here{some}: " + "; ".join(part.measured for part in failed)


def write(result: Result, *, root: Path) -> Path:
    """Write a result below `root`, the repository, and return the file."""
    file = root / FOLDER / (result.paper.replace("/", ".") + ".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return file


def read(*, root: Path) -> dict[str, Result]:
    """Return the results below `root` by paper, sorted. Raises InvalidInput for a file that is not one."""
    found = {}
    for file in sorted((root / FOLDER).glob("*.json")):
        try:
            raw = json.loads(file.read_text("utf-8"))
            result = Result(raw["paper"], raw["setting"], [Part(**part) for part in raw["parts"]])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{file} is not the result of a claim test ({error!r}); run: make claims") from error
        found[result.paper] = result
    return found
