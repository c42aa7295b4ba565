"""Cards, names, pages: what is said about a paper is in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from outthink import papers
from outthink.core.errors import InvalidInput
from outthink.papers import claims
from outthink.papers.__main__ import main
from outthink.papers.cards import HEADINGS, parse
from outthink.papers.pages import pages

ROOT = Path(__file__).resolve().parents[2]
CARD = "A title.\n\n" + "\n".join(f"{heading}: about {heading}\n  and more" for heading in HEADINGS)


@pytest.mark.parametrize("name", papers.NAMES)
def test_every_card_has_all_its_headings_and_says_what_it_needs(name):
    entry = papers.load(name)
    assert entry.family == name.split("/")[0]
    assert set(entry.card.parts["Needs"].replace(" ", "").split(",")) == entry.needs
    assert (entry.solver is not None) == (entry.family != "serving") and entry.title and entry.claim


def test_a_card_is_read_with_its_further_lines():
    card = parse(CARD, name="x")
    assert card.title == "A title" and card.parts["Idea"] == "about Idea\nand more" and str(card).startswith("A title.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no card"),
        (CARD.replace("Spends: about Spends\n  and more\n", ""), "lacks Spends"),
        (CARD + "\nIdea: again", "'Idea' twice"),
        (CARD.replace("Needs: about Needs\n  and more", "Needs:"), "lacks Needs"),
        (CARD.replace("Entry", "?").replace("Recipe", "Entry").replace("?", "Recipe"), "in this order"),
    ],
)
def test_a_wrong_card_says_what_is_wrong(text, message):
    with pytest.raises(InvalidInput, match=message):
        parse(text, name="x")


def test_short_and_full_names_are_the_same_and_unknown_ones_name_the_closest():
    assert papers.load("rebase") == papers.load("baselines/rebase")
    assert papers.load("best-of-n").name == "baselines/best_of_n"
    with pytest.raises(InvalidInput, match="Did you mean 'rebase'"):
        papers.load("rebaze")


def test_generated_pages_are_current():
    for path, text in pages(root=ROOT).items():
        assert path.exists() and path.read_text("utf-8") == text, f"{path} is old; run: python -m outthink.papers"


def test_no_page_is_left_of_a_paper_that_is_gone():
    folder = ROOT / "docs/papers"
    written = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.glob("*/*.md")}
    assert written == set(papers.NAMES)


def test_claim_results_are_written_read_and_shown(tmp_path, monkeypatch, capsys):
    good = claims.Part("a >= b", True, "a is 3, b is 2", {"a": 3.0})
    bad = claims.Part("c >= d", False, "c is 1, d is 2")
    claims.write(claims.Result("sampling/monkeys", "toy, 3 seeds", [good]), root=tmp_path)
    claims.write(claims.Result("stopping/first_finish", "toy", [good, bad]), root=tmp_path)
    found = claims.read(root=tmp_path)
    assert found["sampling/monkeys"].status == "holds"
    assert found["stopping/first_finish"].status == "does not hold here (1 of 2 parts): c is 1, d is 2"
    (tmp_path / "src/outthink/papers").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1 and "METHODS.md" in capsys.readouterr().out
    assert main([]) == 0 and main(["--check"]) == 0
    assert "| holds |" in (tmp_path / "METHODS.md").read_text()
    assert "**does not hold**: c >= d" in (tmp_path / "docs/papers/stopping/first_finish.md").read_text()
    assert "sampling/monkeys" in (tmp_path / "src/outthink/papers/claims.json").read_text()
    (tmp_path / claims.FOLDER / "sampling.monkeys.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"sampling\.monkeys\.json is not the result"):
        claims.read(root=tmp_path)


def test_the_generator_needs_the_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2 and "root of the repository" in capsys.readouterr().err
