"""The suite must notice broken admission: each mutant is a copy of `core` with one change, held to quick laws.

A mutant runs in a process of its own, from a copy of the package in which one piece of source text was replaced.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import outthink

FULL = "if gauge.spent + gauge.held + amount > gauge.cap:"
HEAD = "        if account.queue and account.queue[0] is item:\n            self.unblock((account,))\n"
GIVE_BACK = "        self.queues.unblock(parent.release(account.set_aside, spent))"
NOTHING = "        pass\n"
PAUSE = 'account.run.decide(ticket.path, "pause")\n        self.queues.ahead(ticket, account)\n'
LEAVE = "            if ticket.whole is not None:\n                self.slices.leave(ticket, account)\n"
MUTANTS: dict[str, tuple[str, str, str]] = {
    "one unit over budget": ("account.py", FULL, FULL.replace("cap:", "cap + 1:")),
    "what is in flight is not counted": ("account.py", FULL, FULL.replace(" + gauge.held", "")),
    "reservations are not given back": ("account.py", "gauge.held -= before\n", "gauge.held -= after\n"),
    "a settlement wakes nobody": ("account.py", "        freed += gauge.waiters\n", NOTHING),
    "sub-budgets are not set aside": ("dispatch.py", "        account.reserve(aside)\n", NOTHING),
    "a sub-budget costs its parent nothing": (
        "settle.py", GIVE_BACK, GIVE_BACK.replace("spent)", "tuple(0 for _ in spent))"),
    ),
    "refused while something is in flight": (
        "dispatch.py", "return self._wait(ticket, account, full, amounts)",
        "return self._refuse(ticket, account, full.short(amounts[account.gauges.index(full)]))",
    ),
    "the head of a queue is not woken when it is cancelled": ("queues.py", HEAD, NOTHING),
    "children outlive their parent": ("machine.py", "        self.endings.orphans(node)\n", NOTHING),
    "a run is done before its cancelled work": ("loop.py", "if not run.zombies and not run.done:", "if not run.done:"),
    "idle accounts are not looked at again": (
        "settle.py", "            self.queues.suspects[waiting] = None\n", "            pass\n",
    ),
    "costs of cancelled work are lost": (
        "settle.py", "run.tally.add(cost)\n", "run.tally.add(cost if ticket.state != ZOMBIE else Cost())\n",
    ),
    "what is paused counts as in flight": (
        "settle.py", PAUSE + "        self.idle(account.end())\n", PAUSE,
    ),
    "a slice is not set aside": ("slices.py", "            account.reserve(more)\n", NOTHING),
    "the oldest is not provided for": ("slices.py", "or self.pay(first, account, first.whole)", "or True"),
    "the younger are paid before the older": ("queues.py", "queue[at].age < ticket.age", "queue[at].age > ticket.age"),
    "a slice is shorter than the caller can use": (
        "slices.py", 'max(self.tokens, getattr(ticket.request, "at_least", None) or 1)', "self.tokens",
    ),
    "a cancelled request goes on being the oldest": ("settle.py", LEAVE, ""),
}  # fmt: skip

LAWS = Path(__file__).with_name("test_programs.py")
CASES = Path(__file__).with_name("test_hard_cases.py")
SLICES = Path(__file__).with_name("test_slices.py")
QUICK = """
import importlib.util, sys
def load(path):
    spec = importlib.util.spec_from_file_location("laws", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["laws"] = module
    spec.loader.exec_module(module)
    return module
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
laws = load(sys.argv[1])
for meets in (False, True):
    laws.many(0, 250, meets=meets)
tests = [value for path in sys.argv[2:] for value in vars(load(path)).values()]
chosen = ("TestOrphans", "TestBigRequest", "TestStuck", "TestTheOldest", "TestTheEndOfTheMoney")
for value in tests:
    if isinstance(value, type) and value.__name__ in chosen:
        for name in dir(value):
            if name.startswith("test_"):
                getattr(value(), name)()
print("all laws hold")
"""


def hold_to_laws(package: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", QUICK, str(LAWS), str(CASES), str(SLICES)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the parts of the package that the laws need."""
    source, target = Path(outthink.__file__).parent, tmp_path_factory.mktemp("mutants") / "outthink"
    target.mkdir()
    (target / "__init__.py").write_text("")
    for part in ("core", "testing", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "embedded", "openai")
        shutil.copytree(source / part, target / part, ignore=ignored)
    return target


def test_without_a_change_all_laws_hold(copy: Path) -> None:
    done = hold_to_laws(copy)
    assert done.returncode == 0 and "all laws hold" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(copy: Path, name: str) -> None:
    file, old, new = MUTANTS[name]
    path = copy / "core" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} has no (single) {old!r}; the mutant must follow the source"
    path.write_text(text.replace(old, new))
    try:
        done = hold_to_laws(copy)
    finally:
        path.write_text(text)
    assert done.returncode != 0, f"nobody noticed: {name}"
