"""METHODS.md and docs/papers, made from the cards and the results of the claim tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from . import NAMES, claims, load
from .cards import page

HEAD = """\
# Methods

Every published system in Outthink, generated from the cards in the source by `python -m outthink.papers`.
*Claim*: whether the inequality of its card held when `make claims` measured it, at equal measured cost.
"""


def pages(*, root: Path) -> dict[Path, str]:
    """Return what the generated files below `root`, the repository, should hold."""
    results = claims.read(root=root)
    statuses = {name: _status(name, results) for name in NAMES}
    out = {
        root / "METHODS.md": _methods(statuses),
        root / "src/outthink/papers/claims.json": json.dumps(
            {name: status for name, status in statuses.items() if name in results}, indent=2, ensure_ascii=False
        ) + "\n",
    }  # fmt: skip
    for name in NAMES:
        text = page(name, load(name).card, status=statuses[name], file=f"src/outthink/papers/{name}.py")
        if name in results:
            text = text.replace("\n*Generated", f"\n{_measured(results[name])}\n*Generated", 1)
        out[root / "docs/papers" / f"{name}.md"] = text
    return out


def _status(name: str, results: Mapping[str, claims.Result]) -> str:
    if name in results:
        return results[name].status
    return "baseline" if name.startswith("baselines/") else "not measured"


def _methods(statuses: Mapping[str, str]) -> str:
    families: dict[str, list[str]] = {}
    for name in NAMES:
        families.setdefault(name.split("/")[0], []).append(name)
    lines = [HEAD]
    for family, members in families.items():
        lines += [f"## {family}", "", "| method | what | needs | claim |", "|---|---|---|---|"]
        for name in members:
            entry = load(name)
            needs = ", ".join(sorted(entry.needs))
            what = entry.title.replace("|", "\\|")
            lines.append(f"| [`{name.split('/')[-1]}`](docs/papers/{name}.md) | {what} | {needs} | {statuses[name]} |")
        lines.append("")
    return "\n".join(lines)


def _measured(result: claims.Result) -> str:
    lines = ["## Measured", "", result.setting, ""]
    for part in result.parts:
        lines.append(f"- **{'holds' if part.holds else 'does not hold'}**: {part.claim}. {part.measured}")
    return "\n".join([*lines, ""])
