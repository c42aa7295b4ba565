"""The models that are shipped: they load, agree on the tokenizer, and are what their cards say."""

import pytest
import torch

from outthink.tasks.word_problems import problems, solution
from outthink.training.evaluate import attempt, reasoner_report, reward_report
from outthink.training.recipes import RECIPES, SHIPPED, read_model
from outthink.training.rollouts import rewards

NAMES = [name for name in RECIPES if name != "reasoner-start"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_model_with_a_card_that_names_the_mistakes(name):
    model, tokenizer = read_model(SHIPPED / name)
    assert model.config.vocab_size == tokenizer.get_vocab_size()
    assert model.config.is_reward_model == ("prm" in name)
    assert "mistakes" in (SHIPPED / name / "README.md").read_text()


def test_all_share_one_tokenizer():
    assert len({(SHIPPED / name / "tokenizer.json").read_text() for name in NAMES}) == 1


def test_the_small_one_is_about_thirteen_times_smaller():
    large, small = (
        sum(p.numel() for p in read_model(SHIPPED / name)[0].parameters()) for name in ("reasoner", "reasoner-small")
    )
    assert 12 < large / small < 14


def test_the_reasoner_solves_some_problems_and_the_judge_knows_which():
    """Loose bounds, on few problems: a broken file or a changed format fails, the luck of the draw does not."""
    reasoner, tokenizer = read_model(SHIPPED / "reasoner")
    judge, _ = read_model(SHIPPED / "reasoner-prm")
    attempts = attempt(
        reasoner, tokenizer, problems=problems("validation", limit=16, seed=77), n=8, temperature=0.8, seed=0
    )
    assert 0.25 < reasoner_report(attempts)["pass@1"] < 0.75
    assert reward_report(judge, attempts, tokenizer=tokenizer)["step AUC"] > 0.8


def test_the_judge_tells_a_true_solution_from_nonsense():
    judge, tokenizer = read_model(SHIPPED / "reasoner-prm")
    true, false = [], []
    for problem in problems("validation", limit=32, seed=78):
        text = problem.prompt + solution(problem)
        true.append(tokenizer.encode(text).ids)
        false.append(tokenizer.encode(problem.prompt + "[2] 1+1=2\n# 2\n").ids)
    ends = [[values[-1] for values in rewards(judge, rows)] for rows in (true, false)]
    assert sum(ends[0]) / 32 > sum(ends[1]) / 32 + 0.1
