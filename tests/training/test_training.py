"""Smoke trainings of a tiny model: they fall, they repeat, and what they write can be read."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from outthink.tasks.word_problems import problems, solution
from outthink.training.batches import Document, batched, padded
from outthink.training.evaluate import attempt, reasoner_report, reward_report
from outthink.training.optimizers import schedule
from outthink.training.process_reward import Marking, rolled_out, token_labels, train_reward_model
from outthink.training.recipes import RECIPES, Recipe, read_model, train
from outthink.training.rollouts import END_ID, rewards, sample
from outthink.training.sft import Lessons, document, next_token_loss, train_language_model
from outthink.training.tokenizer import build_tokenizer

TINY = Lessons(layers=2, width=32, heads=2, kv_heads=1, wide=48, steps=20, tokens=1024)
TOKENIZER = build_tokenizer()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny():
    return train_language_model(TINY, TOKENIZER, log=lambda line: None)


def quiet(line):
    pass


def losses(model):
    documents = [
        document(TOKENIZER.encode(p.prompt).ids, TOKENIZER.encode(solution(p)).ids)
        for p in problems("validation", limit=8)
    ]
    tokens, targets = next(batched(lambda: documents, tokens=10_000, seed=0))
    with torch.no_grad():
        return next_token_loss(model, tokens, targets).item()


def test_twenty_steps_lower_the_loss(tiny):
    fresh = train_language_model(replace(TINY, steps=0), TOKENIZER, log=quiet)
    assert losses(tiny) < losses(fresh) - 1.0


def test_a_training_repeats(tiny):
    again = train_language_model(TINY, TOKENIZER, log=quiet)
    assert all(torch.equal(a, b) for a, b in zip(tiny.parameters(), again.parameters(), strict=True))


def test_sampling_repeats_ends_and_takes_prefixes_of_unlike_length(tiny):
    prefixes = [TOKENIZER.encode(p.prompt).ids for p in problems("validation", limit=5)]
    drawn = sample(tiny, prefixes, n=3, temperature=1.0, max_new=12, seed=4)
    assert drawn == sample(tiny, prefixes, n=3, temperature=1.0, max_new=12, seed=4)
    assert [len(rows) for rows in drawn] == [3] * 5
    assert all(len(row) <= 12 and END_ID not in row[:-1] for rows in drawn for row in rows)


def test_the_cache_gives_what_the_whole_forward_gives(tiny):
    prefixes = [TOKENIZER.encode(p.prompt).ids for p in problems("validation", limit=4)]
    drawn = sample(tiny, prefixes, n=1, temperature=0.0, max_new=8, seed=0)
    for prefix, (row,) in zip(prefixes, drawn, strict=True):
        with torch.no_grad():
            logits = tiny.logits(tiny.hidden(torch.tensor([prefix + row])))[0, len(prefix) - 1 : -1]
        chosen = logits[torch.arange(len(row)), torch.tensor(row)]
        assert torch.all(chosen > logits.max(-1).values - 0.1)  # bfloat16 may swap what is nearly tied


def test_labels_turn_to_zero_where_the_solution_leaves_the_true_one():
    made = token_labels([9, 9], [1, 2, 8, 4, 0], true=[1, 2, 3, 4, 0])
    assert made.tokens == [9, 9, 1, 2, 8, 4, 0]
    assert made.targets[1:] == [1, 1, 1, 0, 0, 0] and made.targets[0] != made.targets[0]
    assert token_labels([9], [1, 2, 3], true=[1, 2]).targets == [1, 1, 1, 0]


def test_a_reward_model_trains_and_scores_every_prefix(tiny):
    plan = Marking(problems=16, samples=2, steps=6, tokens=1024)
    judge = train_reward_model(plan, tiny, tokenizer=TOKENIZER, log=quiet)
    rows = [TOKENIZER.encode(p.prompt).ids for p in problems("validation", limit=3)]
    scored = rewards(judge, rows)
    assert [len(values) for values in scored] == [len(row) for row in rows]
    assert all(0 <= value <= 1 for values in scored for value in values)
    report = reward_report(
        judge,
        attempt(tiny, TOKENIZER, problems=problems("validation", limit=4), n=4, temperature=1.0, seed=0),
        tokenizer=TOKENIZER,
    )
    assert "step AUC" in report


def test_rollout_labels_stand_at_line_ends(tiny):
    plan = Marking(problems=8, samples=1, rollouts=2)
    for made in islice(rolled_out(plan, tiny, TOKENIZER, quiet), 8):
        labelled = [token for token, target in zip(made.tokens, made.targets, strict=True) if target == target]
        assert set(labelled) <= {TOKENIZER.token_to_id("Ċ")}
        assert len(made.tokens) == len(made.targets)


def test_a_report_of_a_reasoner_has_every_level(tiny):
    report = reasoner_report(
        attempt(tiny, TOKENIZER, problems=problems("validation", limit=8), n=2, temperature=0.8, seed=0)
    )
    assert {f"pass@1 level {level}" for level in range(1, 9)} <= report.keys()
    assert 0 <= report["pass@1"] <= 1


def test_batches_hold_whole_documents_within_the_size():
    documents = [Document([1] * n, [0.0] * n) for n in (3, 9, 4, 5, 9, 2)]
    for tokens, targets in islice(batched(lambda: list(documents), tokens=18, seed=0), 12):
        assert tokens.numel() <= 18 and tokens.shape == targets.shape
        assert torch.equal(tokens == 0, targets.isnan())


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="no rows"):
        padded([], 0, torch.int64)


@pytest.mark.parametrize(("step", "progress", "factor"), [(0, 0, 0.1), (9, 0.2, 1), (50, 0.5, 1), (50, 0.75, 0.5)])
def test_rates_rise_hold_and_fall(step, progress, factor):
    assert schedule(step, progress, warmup=10, hold=0.5) == pytest.approx(factor)


def test_recipes_write_models_that_are_read_back(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "reasoner-small", replace(RECIPES["reasoner-small"], plan=replace(TINY, steps=2)))
    train("reasoner-small", tmp_path, log=quiet)
    model, tokenizer = read_model(tmp_path)
    assert model.config.hidden_size == 32
    assert tokenizer.to_str() == TOKENIZER.to_str()


def test_a_base_that_is_not_shipped_is_trained_first(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "reasoner-start", Recipe(replace(TINY, steps=4, until=0.5)))
    monkeypatch.setitem(RECIPES, "reasoner", Recipe(replace(TINY, steps=1), base="reasoner-start"))
    lines = []
    train("reasoner", tmp_path, log=lines.append)
    assert lines == ["first the start: reasoner-start"]
    assert read_model(tmp_path)[0].config.hidden_size == 32


@pytest.mark.parametrize(
    ("name", "base", "message"),
    [
        ("reasoner-start", "here", "starts from random weights: give no base"),
        ("reasonr", None, "there is no recipe 'reasonr'"),
    ],
)
def test_wrong_recipes_are_explained(tmp_path, name, base, message):
    with pytest.raises(ValueError, match=message):
        train(name, tmp_path, base=base)
