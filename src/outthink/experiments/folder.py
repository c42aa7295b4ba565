"""The folder of a comparison: header.json, results.jsonl (a line per cell, as they finish), rows.json.

What is on disk is always whole: a line is written and flushed at once, and a half line that a crash left behind is
taken off when the comparison goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from outthink.core.errors import InvalidInput
from outthink.experiments.cells import Cell

SCHEMA = 1
MATCH = ("schema", "task", "task_digest", "model", "verifier", "seed", "settings", "versions")
"""Header fields that must be equal for results to be of one comparison. Methods and budgets may grow."""


class Folder:
    """An open folder: `cells` are those already done. Close it, or use it in a `with`."""

    def __init__(self, path: Path, cells: list[Cell], results: IO[str]) -> None:
        self.path, self.cells, self._results = path, cells, results

    def add(self, cell: Cell) -> None:
        """Append one line and hand it to the operating system."""
        self._results.write(json.dumps(cell.to_json(), ensure_ascii=False) + "\n")
        self._results.flush()

    def write(self, name: str, text: str) -> Path:
        """Replace the file `name` as a whole: readers see the old one or the new one."""
        target, fresh = self.path / name, self.path / (name + ".tmp")
        fresh.write_text(text, "utf-8")
        os.replace(fresh, target)
        return target

    def close(self) -> None:
        self._results.close()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_folder(path: str | Path, header: Mapping[str, Any], *, resume: bool = False) -> Folder:
    """Create the folder of a new comparison, or with `resume` go on with the one that is there.

    Raises InvalidInput if there are results and `resume` is false, if the header differs in any of `MATCH` (naming
    the field and both values), or if a line of results is damaged. Resuming an empty or absent folder starts anew.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"{path} is a file; -o wants a folder for the results")
    head, results = path / "header.json", path / "results.jsonl"
    cells: list[Cell] = []
    if results.exists() and results.stat().st_size:
        if not resume:
            raise InvalidInput(
                f"{path} already holds results; add --resume to go on with them, or choose another folder"
            )
        _check(head, header)
        cells = _read(results)
    _make(path)
    header = {"schema": SCHEMA, **header}
    out = open(results, "a", encoding="utf-8")
    folder = Folder(path, cells, out)
    folder.write("header.json", json.dumps(header, indent=2, ensure_ascii=False) + "\n")
    return folder


def read_folder(path: str | Path) -> tuple[dict[str, Any], list[Cell]]:
    """Return the header and the cells of a comparison. Raises InvalidInput if it is none."""
    path = Path(path)
    header = _header(path / "header.json")
    return header, _read(path / "results.jsonl", repair=False)


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be created: {error.strerror}; choose another folder with -o") from None


def _header(head: Path) -> dict[str, Any]:
    try:
        data = json.loads(head.read_text("utf-8"))
    except OSError:
        raise InvalidInput(f"{head.parent} has no header.json; it is not the folder of a comparison") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{head}:{error.lineno}: not JSON ({error.msg}); choose another folder with -o") from None
    return data


def _check(head: Path, header: Mapping[str, Any]) -> None:
    old = _header(head)
    new = json.loads(json.dumps({"schema": SCHEMA, **header}))
    for field in MATCH:
        if old.get(field) != new.get(field):
            raise InvalidInput(
                f"{head.parent} cannot be resumed: its {field.replace('_', ' ')} was {_short(old.get(field))} and is "
                f"now {_short(new.get(field))}. Use the same settings, or choose another folder"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


def _read(results: Path, *, repair: bool = True) -> list[Cell]:
    """Return the cells of results.jsonl; with `repair`, cut a half line at its end off the file."""
    try:
        data = results.read_bytes()
    except OSError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    cells: dict[tuple[str, str, str], Cell] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            cell = Cell.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{results}:{number}: damaged ({error}); remove the line or choose another folder"
            ) from None
        cells[cell.key] = cell
    if repair and len(whole) < len(data):
        with open(results, "r+b") as file:
            file.truncate(len(whole))
    return list(cells.values())
