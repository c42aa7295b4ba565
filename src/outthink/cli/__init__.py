"""The command line: `outthink solve | compare | papers | show | demo`."""

from __future__ import annotations

from outthink.cli.main import cli, main

__all__ = ["cli", "main"]
