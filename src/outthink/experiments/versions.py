"""Which versions made a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("outthink", "torch", "aiohttp")


def versions() -> dict[str, str]:
    """Return the version of Python and of what computes here; a package that is not installed is left out."""
    out = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            continue
    return out
