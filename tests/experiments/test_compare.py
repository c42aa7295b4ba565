"""ot.compare: the same problems for all, kept as they finish, gone on with, and never over budget."""

import json
import os
import signal
import threading
from itertools import pairwise

import pytest

import outthink as ot
from outthink.experiments import work as working
from outthink.experiments.setting import Setting, open_setting
from outthink.models.pool import Pool
from outthink.models.toy import Toy, toy_backend

TOY = "toy/t1"
OPTIONS = {"methods": ["greedy", "majority"], "budgets": ["128", "300"], "model": TOY}


def cells(comparison):
    return {(c.key, c.answer, c.cost, c.correct) for c in comparison.cells}


def test_rows_for_every_method_and_budget_within_it(toy_file):
    comparison = ot.compare(str(toy_file), **OPTIONS)
    assert [(row["method"], row["budget"], row["n"]) for row in comparison.rows] == [
        ("greedy", "128 tokens", 6), ("greedy", "300 tokens", 6),
        ("majority", "128 tokens", 6), ("majority", "300 tokens", 6),
    ]  # fmt: skip
    assert all(cell.cost.tokens <= int(cell.budget.split()[0]) for cell in comparison.cells)
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in comparison.rows)


def test_how_many_are_at_work_at_once_changes_nothing(toy_file):
    assert cells(ot.compare(str(toy_file), **OPTIONS)) == cells(ot.compare(str(toy_file), **OPTIONS, together=1))


def test_a_cell_is_what_solve_would_give(toy_file):
    comparison = ot.compare(str(toy_file), methods=["majority"], budgets=["300"], model=TOY, seed=3)
    alone = ot.compare(str(toy_file), methods=["majority"], budgets=["300"], model=TOY, seed=3, limit=1)
    assert cells(alone) <= cells(comparison)


def test_the_folder_holds_everything_and_is_not_overwritten(toy_file, tmp_path):
    out = tmp_path / "out"
    comparison = ot.compare(str(toy_file), **OPTIONS, out=out, command="outthink compare ...")
    assert sorted(path.name for path in out.iterdir()) == [
        "header.json",
        "plot.png",
        "report.html",
        "results.jsonl",
        "rows.json",
    ]
    assert len((out / "results.jsonl").read_text().splitlines()) == 24
    document = json.loads((out / "rows.json").read_text())
    assert document == json.loads(json.dumps(comparison.to_dict()))
    assert list(document) == ["rows", "command", "versions"]
    with pytest.raises(ot.InvalidInput, match="add --resume"):
        ot.compare(str(toy_file), **OPTIONS, out=out)


def test_resuming_does_only_what_is_missing(toy_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    whole = ot.compare(str(toy_file), **OPTIONS, out=out)
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
    started = []
    real = working.Work._start
    monkeypatch.setattr(
        working.Work, "_start", lambda self, runtime, key: started.append(key) or real(self, runtime, key)
    )
    again = ot.compare(str(toy_file), **OPTIONS, out=out, resume=True)
    assert len(started) == 4
    assert cells(again) == cells(whole)
    more = ot.compare(str(toy_file), **{**OPTIONS, "budgets": ["128", "300", "400"]}, out=out, resume=True)
    assert len(more.cells) == 36 and len(started) == 16


def test_resuming_with_other_problems_is_refused(toy_file, tmp_path):
    out = tmp_path / "out"
    ot.compare(str(toy_file), **OPTIONS, out=out)
    with pytest.raises(ot.InvalidInput, match="its seed was 0 and is now 1"):
        ot.compare(str(toy_file), **OPTIONS, out=out, resume=True, seed=1)
    toy_file.write_text(toy_file.read_text().replace('"answer": "', '"answer": "1'))
    with pytest.raises(ot.InvalidInput, match="its task digest was"):
        ot.compare(str(toy_file), **OPTIONS, out=out, resume=True)


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(toy_file, tmp_path):
    out = tmp_path / "out"

    def interrupt(progress):
        if progress.done == 7:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    first = ot.compare(str(toy_file), **OPTIONS, out=out, watch=interrupt, together=2)
    assert signal.getsignal(signal.SIGINT) is before
    assert first.interrupted and 7 <= len(first.cells) < 24
    assert len((out / "results.jsonl").read_text().splitlines()) == len(first.cells)
    second = ot.compare(str(toy_file), **OPTIONS, out=out, resume=True)
    assert not second.interrupted
    assert cells(second) == cells(ot.compare(str(toy_file), **OPTIONS))


def test_it_works_in_another_thread(toy_file):
    found = []
    thread = threading.Thread(target=lambda: found.append(ot.compare(str(toy_file), **OPTIONS)))
    thread.start()
    thread.join()
    assert len(found[0].cells) == 24


def test_progress_tells_how_far_it_is(toy_file):
    seen = []
    ot.compare(
        str(toy_file), **OPTIONS, watch=lambda p: seen.append((p.done, p.total, p.tokens, p.rate > 0, p.accuracy[1]))
    )
    assert [s[0] for s in seen] == list(range(1, 25)) and {s[1] for s in seen} == {24}
    assert all(a[2] < b[2] for a, b in pairwise(seen))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"methods": ["gredy"]}, "Did you mean 'greedy'"),
        ({"methods": ["greedy", "baselines/greedy"]}, "given twice"),
        ({"methods": []}, "no methods"),
        ({"budgets": []}, "no budgets"),
        ({"budgets": ["1k", "1000"]}, "given twice"),
        ({"budgets": ["-4"]}, "negative"),
        ({"budgets": ["9"]}, "cannot pay for one sample of toy/t1 on any problem"),
        ({"model": "toy/x"}, "unknown toy model"),
    ],
)
def test_mistakes_are_found_before_anything_is_spent_or_written(toy_file, tmp_path, monkeypatch, change, says):
    monkeypatch.setattr(Toy, "submit", lambda *_: pytest.fail("something was spent"))
    with pytest.raises(ot.InvalidInput, match=says):
        ot.compare(str(toy_file), **{**OPTIONS, **change}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Flaky(Toy):
    """Fails every request of one problem, for good."""

    def submit(self, ticket, request):
        if "0003" in request.prefix.text:
            from outthink.core.backend import Failure, Settled
            from outthink.core.cost import Cost

            self.ended.append(Settled(ticket, None, Cost(), Failure("lost")))
        else:
            super().submit(ticket, request)


def test_cells_that_failed_are_told_and_tried_again(toy_file, tmp_path):
    out = tmp_path / "out"
    world = toy_backend(TOY).world
    options = {**OPTIONS, "out": out}
    with Setting(TOY, TOY, {TOY: Flaky(world, name=TOY)}, {}) as setting:
        broken = ot.compare(str(toy_file), **{**options, "model": setting})
    assert len(broken.failed) == 4 and "lost" in broken.failed[0]
    assert len(broken.cells) == 20
    healed = ot.compare(str(toy_file), **options, resume=True)
    assert cells(healed) == cells(ot.compare(str(toy_file), **OPTIONS))


def test_methods_may_replay_a_pool_and_the_rows_say_so(toy_file):
    from outthink.experiments.demo import record
    from outthink.experiments.questions import load

    questions = load(str(toy_file))
    with open_setting(TOY) as setting:
        recording = record(setting, [q.problem for q in questions.items], budget=600, seed=0)
        setting.backends["pool"] = Pool(recording, decode=lambda ids: "".join(map(chr, ids)), of={"pool": TOY})
        comparison = ot.compare(questions, methods=["greedy", "majority", "best_of_n", "rebase"],
                                budgets=["200", "600"],
                                model=setting, pooled={"majority": "pool", "best_of_n": "pool"})  # fmt: skip
    pooled = {row["method"]: row["cost"]["pooled"] for row in comparison.rows}
    assert pooled == {"greedy": False, "majority": True, "best_of_n": True, "rebase": False}
    assert all(cell.cost.tokens <= int(cell.budget.split()[0]) and cell.answer for cell in comparison.cells)
    assert "majority, best_of_n replayed" in comparison.to_html()
