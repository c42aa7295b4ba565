"""What the documents say about methods is true of those that exist."""

import re
from pathlib import Path

import pytest

from outthink.papers import NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_method_that_is_recommended_exists():
    names = {name.split("/")[-1] for name in NAMES}
    table = [line for line in (DOCS / "how-to-choose.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    named = {name for line in table[1:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[2])}
    assert len(named) > 6
    assert named <= names


@pytest.mark.parametrize("name", ["concepts", "how-to-choose", "faq"])
def test_documents_are_short(name):
    assert len((DOCS / f"{name}.md").read_text("utf-8").splitlines()) <= 110
