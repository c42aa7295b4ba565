"""What holds for the repository as a whole: commands, packaging, names, sizes, and nothing left behind."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LONGEST = 300
LONGER = {"src/outthink/testing/conformance/methods.py": "one function per law of a method, to be read side by side"}
"""Modules that may be longer than that, each with the reason: {"src/outthink/...": "why"}."""
JUNK = {"util", "utils", "common", "helper", "helpers", "misc"}
HEAVY = {"torch", "numpy", "scipy", "matplotlib", "transformers", "tokenizers", "safetensors", "starlette", "uvicorn"}


def tracked(*suffixes: str) -> list[Path]:
    """Return the files under version control; where git or its folder is missing, all that are not ignored folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else []
    if not names:
        hidden = re.compile(r"(^|/)(\.(?!ci/)|__pycache__|build/|outputs/|runs/)")
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
        names = [name for name in names if not hidden.search(name)]
    paths = [ROOT / name for name in sorted(names)]
    return [path for path in paths if path.exists() and (not suffixes or path.suffix in suffixes)]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], "not a pin of one version"
    return {normal(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_make_targets_that_documents_name_exist():
    command = re.compile(r"(?:`|^)make ([a-z]+(?: [a-z]+)*)", re.MULTILINE)
    named = {
        (path.name, word)
        for path in tracked(".md")
        for words in command.findall(path.read_text("utf-8"))
        for word in words.split()
    }

    assert {("README.md", "demo"), ("README.md", "test")} <= named
    assert {(name, word) for name, word in named if word not in make_targets()} == set()


def test_every_target_says_what_it_does():
    text = (ROOT / "Makefile").read_text("utf-8")
    silent = [line for line in text.splitlines() if re.match(r"[a-z]+:", line) and "## " not in line]

    assert silent == []


def test_console_script_answers():
    script = Path(sys.executable).with_name("outthink")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    for command in ("solve", "compare", "papers", "show"):
        assert command in done.stdout


def test_importing_the_library_and_its_command_line_imports_nothing_heavy():
    code = f"import sys, outthink, outthink.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"


def test_wheel_holds_types_marker_models_and_nothing_else_than_the_package(tmp_path, monkeypatch):
    buildapi = pytest.importorskip("flit_core.buildapi")
    monkeypatch.chdir(ROOT)
    names = zipfile.ZipFile(tmp_path / buildapi.build_wheel(str(tmp_path))).namelist()

    assert "outthink/py.typed" in names
    assert "outthink/models/embedded/reasoner/config.json" in names
    assert "outthink/models/embedded/reasoner-prm/model.safetensors" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"outthink"}
    assert [name for name in names if "__pycache__" in name] == []


def test_one_version_everywhere():
    import outthink

    version = PROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")

    assert outthink.__version__ == version
    assert importlib.metadata.version("outthink") == version
    assert re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", changelog, re.MULTILINE)


def test_constraints_pin_what_make_installs():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + extras["engine"] + extras["analysis"] + extras["dev"]
    pinned = pins()

    assert {normal(re.split(r"[<>=]", spec)[0]) for spec in wanted} - set(pinned) == set()
    assert "+" not in pinned["torch"], "a local version (+cpu) exists on one machine only"


def test_dependencies_of_what_is_pinned_are_pinned_too():
    """Only for what this environment has installed at the pinned version: markers are those of this machine."""
    from packaging.requirements import Requirement

    pinned = pins()
    loose = set()
    for name in pinned:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                loose |= {f"{name} needs {need.name}"} if normal(need.name) not in pinned else set()
    assert {text for text in loose if not re.search(r"needs (pip|setuptools|triton|nvidia|cuda)", text)} == set()


def test_the_map_of_the_house_has_every_room():
    package = ROOT / "src" / "outthink"
    rooms = {path.relative_to(package).parts[0] for path in tracked(".py") if path.is_relative_to(package)}
    drawn = re.findall(r"^\| `(\w+)/` \|", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.MULTILINE)

    assert sorted(drawn) == sorted(room for room in rooms if not room.endswith(".py"))


def test_no_file_has_a_name_that_says_nothing():
    assert [path for path in tracked() if {path.stem, *path.relative_to(ROOT).parent.parts} & JUNK] == []


def test_modules_stay_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in tracked(".py")}
    long = {name: n for name, n in lines.items() if name.startswith("src/") and n > LONGEST and name not in LONGER}

    assert long == {}, "split it by subject, or give the reason in LONGER"
    assert set(LONGER) <= set(lines), "a file that is gone needs no exception"


def test_nothing_names_a_place_on_the_machine_it_was_written_on():
    place = re.compile(r"(?<![\w./:~-])/(?:home|root|Users|work|opt|mnt)/[\w.]+")
    found = {}
    for path in tracked(".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".sh", ".html", ""):
        hits = place.findall(path.read_text("utf-8", "replace"))
        if hits:
            found[str(path.relative_to(ROOT))] = hits[:3]

    assert found == {}


def test_table_of_results_is_the_one_that_was_measured():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import readme_table
    finally:
        sys.path.pop(0)
    kept = readme_table.KEPT
    data = json.loads(kept.read_text("utf-8")) if kept.exists() else None

    assert readme_table.block(data) in (ROOT / "README.md").read_text("utf-8"), "run `make results`"
