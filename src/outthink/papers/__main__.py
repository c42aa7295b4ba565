"""Write METHODS.md and docs/papers anew: `python -m outthink.papers [--check]`, in the repository."""

from __future__ import annotations

import sys
from pathlib import Path

from .pages import pages


def main(arguments: list[str]) -> int:
    """Return 0 if all is current (or was written), 1 if `--check` found something old, 2 for a wrong call."""
    root = Path.cwd()
    if arguments not in ([], ["--check"]) or not (root / "src/outthink/papers").is_dir():
        print("usage, in the root of the repository: python -m outthink.papers [--check]", file=sys.stderr)
        return 2
    wanted = pages(root=root).items()
    old = [(path, text) for path, text in wanted if not path.exists() or path.read_text("utf-8") != text]
    for path, text in old:
        print(f"{'old' if arguments else 'written'}: {path.relative_to(root)}")
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    if old and arguments:
        print("write them anew with: python -m outthink.papers", file=sys.stderr)
    return 1 if old and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
