"""The examples run, and say what they promise."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAYS = {
    "01_quickstart.py": ["majority", "verify", "output tokens are not in the answer"],
    "02_budget.py": ["200 tokens", "$0.003", "after", "cannot pay for one sample"],
    "03_own_verifier.py": ["value", "function/sums_are_right"],
    "04_own_method.py": ["two_agree", "tokens a problem"],
}


def test_every_example_is_tested():
    assert sorted(SAYS) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(name, capsys):
    pytest.importorskip("torch")
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out = capsys.readouterr().out
    assert [text for text in SAYS[name] if text not in out] == []
