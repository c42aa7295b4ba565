"""Documents cannot rot: their links lead somewhere, and their Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("design/*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"(?P<before>[^\n]*)\n```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(text: str) -> list[str]:
    """Return the targets of links and images, code left out."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, made as on GitHub."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def blocks(text: str) -> list[tuple[int, str]]:
    """Return (line, code) of every Python block that is to run.

    A block is left out where the line above it says why: `<!-- not run: it needs a server -->`.
    """
    found = []
    for match in FENCE.finditer(text):
        if NOT_RUN.search(match["before"]) is None:
            found.append((text[: match.start("code")].count("\n"), match["code"]))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    dead = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            dead.append(link)

    assert dead == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path.read_text("utf-8"))], ids=name_of)
def test_python_of_a_document_runs(path, tmp_path, monkeypatch):
    """The blocks of one document are one program, so that a later one may use what an earlier one made."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "__document__"}
    for line, code in blocks(path.read_text("utf-8")):
        # Blank lines in front, so that a traceback names the line of the document.
        exec(compile("\n" * line + code, str(path), "exec"), space)


def test_readers_of_documents_see_what_they_should():
    """The two readers above, on a document whose faults are known: otherwise they might find nothing, ever."""
    text = (
        "# A b: c\n[x](y.md#z) `[no](link)`\n\n```python\na = 1\n```\n\n"
        "<!-- not run: needs a server -->\n```python\nb\n```\n"
    )

    assert links(text) == ["y.md#z"]
    assert anchors(text) == {"a-b-c"}
    assert blocks(text) == [(4, "a = 1\n")]
