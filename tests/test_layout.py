"""The house: who may import whom, what belongs to a paper, what a file may be called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from outthink.papers import NAMES

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/outthink"
LAYERS = (
    ("core",),
    ("spaces", "verifiers", "methods", "tasks", "store", "analysis", "engine", "serving"),
    ("models", "training"),
    ("papers",),
    ("experiments",),
    ("gateway", "integrations", "cli", "__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LEVEL["testing"] = LEVEL["papers"]  # it sees what is below papers; nothing below sees it
JUNK = {"utils", "util", "common", "helpers", "helper", "misc", "stuff", "tools", "base"}
FILES = sorted(path for path in SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """Return the folder below outthink/ that a file is in, or the file's own name."""
    inside = path.relative_to(SOURCE).parts
    return inside[0] if len(inside) > 1 else path.stem


def imported(path: Path) -> set[str]:
    """Return the modules of Outthink that a file imports, anywhere in it, as dotted names below outthink."""
    package = ["outthink", *path.relative_to(SOURCE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "outthink" else {module}
            found |= {f"{module}.{alias.name}" for alias in node.names if (SOURCE / _folder(module)).is_dir()}
    return {name.removeprefix("outthink.") for name in found if name.split(".")[0] == "outthink" and "." in name}


def _folder(module: str) -> str:
    return "/".join(module.split(".")[1:])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_layer_imports_only_from_layers_before_it(path):
    mine = part(path)
    assert mine in LEVEL, f"{mine} has no layer; give it one in ARCHITECTURE.md and here"
    for name in imported(path):
        other = name.split(".")[0]
        if other == mine or other not in LEVEL:
            continue
        top = LEVEL[mine] == len(LAYERS) - 1  # the command line may be started from the package, and reads its version
        assert LEVEL[other] < LEVEL[mine] or top, f"{path.relative_to(ROOT)} imports {name}"


def test_no_paper_imports_a_paper():
    for path in (SOURCE / "papers").glob("*/**/*.py"):
        own = path.relative_to(SOURCE / "papers").with_suffix("").parts
        for name in imported(path):
            pieces = name.split(".")[1:]
            if name.startswith("papers.") and len(pieces) >= 2:
                assert tuple(pieces[:2]) == own[:2], f"{path.relative_to(ROOT)} imports {name}"


def test_the_list_of_papers_is_the_files():
    files = {
        path.relative_to(SOURCE / "papers").with_suffix("").as_posix()
        for path in (SOURCE / "papers").glob("*/*.py")
        if path.stem != "__init__"
    }
    folders = {
        path.parent.relative_to(SOURCE / "papers").as_posix() for path in (SOURCE / "papers").glob("*/*/__init__.py")
    }
    assert files | folders == set(NAMES) and list(NAMES) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("baselines/")])
def test_a_paper_has_a_claim_test_and_a_page(name):
    short = name.split("/")[1]
    assert (ROOT / f"tests/claims/test_{short}.py").exists(), f"no claim test for {name}: tests/claims/test_{short}.py"
    assert (ROOT / f"docs/papers/{name}.md").exists(), f"no page for {name}; run: python -m outthink.papers"


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_is_one_short_file_or_a_folder(name):
    file = SOURCE / "papers" / f"{name}.py"
    assert not file.exists() or len(file.read_text("utf-8").splitlines()) <= 250, f"{name}: make it a folder"


def test_no_file_is_a_junk_drawer():
    bad = [path for path in FILES if {path.stem, *path.relative_to(SOURCE).parent.parts} & JUNK]
    assert not bad, f"give these a subject: {bad}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if part(p) in ("methods", "papers")], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_methods_and_papers_share_no_mutable_state(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        assert not isinstance(node, ast.AugAssign), f"line {node.lineno}: module state that changes"
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        mutable = isinstance(value, ast.List | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        mutable |= isinstance(value, ast.Call) and getattr(value.func, "id", "") in {"list", "dict", "set"}
        constant = isinstance(target, ast.Name) and (target.id.isupper() or target.id == "__all__")
        assert not mutable or (target is not None and getattr(target, "id", "") == "__all__"), f"line {node.lineno}"
        assert not isinstance(value, ast.Dict) or constant, f"line {node.lineno}: a dictionary that is no constant"
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"


@pytest.mark.parametrize("folder", ["methods", "spaces", "verifiers"])
def test_methods_have_no_clock_no_chance_of_their_own_and_no_io(folder):
    for path in (SOURCE / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module or ""} if isinstance(node, ast.ImportFrom) and node.level == 0 else set()
            wrong = names & {"time", "datetime", "os", "io", "socket", "subprocess", "random", "asyncio", "pathlib"}
            if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} == {"Random"}:
                wrong -= {"random"}  # a generator of one's own, made from a seed
            assert not wrong, f"{path.name} imports {wrong}"
