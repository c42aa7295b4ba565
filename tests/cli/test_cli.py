"""The command line as people use it: output, JSON, exit codes, and one paragraph for every mistake."""

import json
import sys

import pytest

from outthink.cli.main import main
from outthink.models.toy import toy_problems

PROMPT = toy_problems(3)[1].prompt
TOY = ["--model", "toy/t1"]


@pytest.fixture
def run(capsys, monkeypatch):
    """Call the command line; return exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["outthink", *arguments])
        with pytest.raises(SystemExit) as leave:
            main(arguments)
        out, err = capsys.readouterr()
        return leave.value.code, out, err

    return call


@pytest.fixture
def refused(run):
    """Call the command line; return its message, which is one paragraph on stderr with exit code 2."""

    def call(*arguments, code=2):
        status, out, err = run(*arguments)
        assert (status, out) == (code, "")
        assert err.startswith("error: ") and err.count("\n") == 1
        return err

    return call


def test_solve_prints_the_answer_and_nothing_else_into_a_pipe(run):
    code, out, err = run("solve", PROMPT, *TOY, "--budget", "600", "--method", "majority")
    assert (code, err) == (0, "") and out.strip().isdigit() and out.count("\n") == 1


def test_solve_json_is_one_document_with_everything(run):
    code, out, err = run("solve", PROMPT, *TOY, "--budget", "600", "--method", "best_of_n", "--seed", "5", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert {"answer", "text", "value", "stopped", "cost", "seconds", "seed", "method", "model", "trace"} <= set(
        document
    )
    total = document["cost"]["total"]
    assert {"calls", "prompt_tokens", "cached_tokens", "output_tokens", "discarded_tokens"} <= set(total)
    assert total["prompt_tokens"] + total["output_tokens"] <= 600
    assert (document["seed"], document["method"], document["model"], document["trace"]) == (
        5,
        "best_of_n",
        "toy/t1",
        None,
    )
    assert set(document["cost"]["by_model"]) == {"toy/t1"} and set(document["cost"]["by_role"]) == {
        "generate",
        "verify",
    }


def test_the_prompt_may_come_from_standard_input(run, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT + "\n"))
    piped = json.loads(run("solve", "-", *TOY, "--budget", "300", "--json")[1])
    assert piped["prompt"] == PROMPT


def test_what_solve_wrote_is_shown(run, tmp_path):
    folder = tmp_path / "run"
    code, out, _ = run("solve", PROMPT, *TOY, "--budget", "900", "--method", "rebase", "-o", str(folder), "--json")
    document = json.loads(out)
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", "trace.jsonl", "view.html"]
    assert json.loads((folder / "result.json").read_text()) == document
    assert document["trace"] == str(folder / "trace.jsonl")
    code, out, err = run("show", str(folder))
    assert (code, err) == (0, "") and "thrown away" in out and "✓ #" in out and "score" in out
    shown = json.loads(run("show", str(folder), "--json")[1])
    assert sum(bar["tokens"] for bar in shown["waterfall"]) == document["cost"]["total"]["tokens"]
    assert shown["tree"][0]["text"] == PROMPT
    alone = run("show", str(folder / "trace.jsonl"))
    assert alone[0] == 0


def test_compare_prints_a_table_and_shows_it_again(run, toy_file, tmp_path):
    options = ["--methods", "greedy,majority", "--budgets", "128,1k"]
    code, out, err = run("compare", str(toy_file), *TOY, *options, "-o", str(tmp_path / "c"))
    assert (code, err) == (0, "")
    assert "majority" in out and "1k tokens" in out and "95% interval" in out and "\x1b" not in out
    code, again, _ = run("show", str(tmp_path / "c"))
    assert code == 0 and again.split("\n")[1:] == out.split("\n")[1:]


def test_compare_json_is_one_document_and_the_command_is_in_it(run, toy_file, tmp_path):
    arguments = ["compare", str(toy_file), *TOY, "--methods", "greedy", "--budgets", "128,300", "--json"]
    code, out, err = run(*arguments)
    document = json.loads(out)
    assert (code, err, list(document)) == (0, "", ["rows", "command", "versions"])
    assert set(document["rows"][0]) == {
        "task", "model", "method", "budget", "n", "accuracy", "low", "high", "cost", "seconds",
    }  # fmt: skip
    assert document["command"] == "outthink " + " ".join(arguments)
    kept = run(*arguments, "-o", str(tmp_path / "c"))
    assert json.loads(kept[1])["rows"][0]["cost"] == document["rows"][0]["cost"]
    shown = json.loads(run("show", str(tmp_path / "c"), "--json")[1])
    assert shown["rows"] == json.loads(kept[1])["rows"] and shown["command"].startswith("outthink compare")


def test_budgets_with_commas_are_separated_by_semicolons(run, toy_file):
    out = run("compare", str(toy_file), *TOY, "--methods", "greedy", "--budgets", "300, 20 calls; 400", "--json")[1]
    assert [row["budget"] for row in json.loads(out)["rows"]] == ["300 tokens, 20 calls", "400 tokens"]


def test_papers_are_listed_and_explained(run):
    code, out, _ = run("papers", "--json")
    listed = json.loads(out)["papers"]
    assert code == 0 and {"name", "family", "title", "needs", "claim", "status"} == set(listed[0])
    assert {"majority", "rebase", "first_finish"} <= {paper["name"].split("/")[-1] for paper in listed}
    assert "rebase" in run("papers")[1]
    assert "Claim" in run("papers", "rebase")[1]
    assert json.loads(run("papers", "rebase", "--json")[1])["papers"][0]["name"].endswith("rebase")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["slove", "x"], "Did you mean 'solve'?"),
        (["solve"], "Missing argument 'PROMPT'"),
        (["solve", "x", "--jsn"], "--json"),
        (["solve", " ", *TOY], "the prompt is empty"),
        (["solve", "x", *TOY, "--method", "majorty"], "Did you mean 'majority'?"),
        (["solve", "x", "--model", "embeded/reasoner"], "Did you mean 'embedded/reasoner'?"),
        (["solve", "x", *TOY, "--verifier", "toy/t9"], "unknown toy model 'toy/t9'"),
        (["solve", "x", *TOY, "--budget", "5 tokns"], "Did you mean 'tokens'?"),
        (["solve", "x", *TOY, "--budget", "lots"], "cannot read 'lots'"),
        (["solve", "xxxxxxxxxx", *TOY, "--budget", "4"], "needs at least 11 tokens"),
        (["solve", "x", "--model", "engine/no/such/folder"], "no folder"),
        (["compare", "word_problem", "--methods", "greedy", "--budgets", "1k"], "Did you mean 'word_problems'?"),
        (["compare", "no.jsonl", "--methods", "greedy", "--budgets", "1k"], "cannot be read"),
        (["compare", "word_problems", "--methods", "greedy", "--budgets", ","], "--budgets is empty"),
        (["compare", "word_problems", "--methods", "greedy", "--budgets", "1k", "--resume"], "name it with -o DIR"),
        (["compare", "word_problems", "--methods", "greedy", "--budgets", "1k", "--limit", "0"], "--limit"),
        (["papers", "rebas"], "Did you mean 'rebase'?"),
        (["show", "no/such/run"], "holds no trace.jsonl"),
    ],
)
def test_a_mistake_is_one_paragraph_and_exit_code_2(refused, arguments, says):
    assert says in refused(*arguments)


def test_bad_lines_of_a_task_are_named(refused, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "prompt": "p", "answer": "1"}\n{"id": 1, "prompt": "p", "answer": "1"}\n')
    assert f"{path}:2: id '1' was used on line 1" in refused(
        "compare", str(path), *TOY, "--methods", "greedy", "--budgets", "99"
    )
    path.write_text("{\n")
    assert f"{path}:1: not JSON" in refused("compare", str(path), *TOY, "--methods", "greedy", "--budgets", "99")


def test_a_missing_extra_names_the_pip_command(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'outthink[engine]'" in refused("solve", "x", "--model", "embedded/reasoner")


@pytest.mark.parametrize("damage", ["truncate", "garbage", "config", "missing"])
def test_a_checkpoint_that_is_corrupt_is_named(run, tmp_path, damage):
    pytest.importorskip("torch")
    import shutil

    from outthink.models.open import EMBEDDED

    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "reasoner", folder)
    weights = folder / "model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "garbage":
        weights.write_bytes(b"not a checkpoint at all")
    elif damage == "config":
        (folder / "config.json").write_text("{")
    else:
        weights.unlink()
    code, out, err = run("solve", "x", "--model", f"engine/{folder}", "--method", "greedy")
    assert code in (1, 2) and out == "" and err.count("\n") == 1
    assert ("config.json" if damage == "config" else "model.safetensors") in err


def test_a_reward_model_is_no_model_that_writes(refused):
    pytest.importorskip("torch")
    assert "Give it as --verifier" in refused("solve", "x", "--model", "embedded/reasoner-prm", "--method", "greedy")


def test_a_damaged_trace_is_named_with_its_line(refused, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("hello\n")
    assert f"{path}, line 1: not JSON" in refused("show", str(path))


def test_help_is_there_for_every_command(run):
    for command in ([], ["solve"], ["compare"], ["papers"], ["show"], ["demo"]):
        code, out, err = run(*command, "--help")
        assert (code, err) == (0, "") and "Usage: outthink" in out


def test_no_command_shows_the_help(run):
    code, out, err = run()
    assert code == 2 and out == "" and "Usage: outthink" in err


def test_an_interrupted_compare_says_how_to_go_on(run, toy_file, tmp_path, monkeypatch):
    import os
    import signal

    from outthink.experiments import compare as comparing
    from outthink.experiments import work as working

    arguments = [
        "compare",
        str(toy_file),
        *TOY,
        "--methods",
        "greedy,majority",
        "--budgets",
        "128,300",
        "-o",
        str(tmp_path / "c"),
    ]
    real = working.Work._settle

    def interrupted(self, key, run):
        real(self, key, run)
        if len(self.comparison.cells) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(working.Work, "_settle", interrupted)
        patch.setitem(comparing.compare.__kwdefaults__, "together", 2)
        code, out, err = run(*arguments)
    assert code == 130 and "greedy" in out
    assert "interrupted after" in err and "--resume goes on" in err
    code, out, err = run(*arguments, "--resume", "--json")
    assert (code, err) == (0, "") and sum(row["n"] for row in json.loads(out)["rows"]) == 24
    assert "--resume" not in json.loads(out)["command"]


def test_prices_come_from_a_file_and_limit_dollars(run, refused, tmp_path):
    cards = tmp_path / "cards.json"
    cards.write_text('{"toy/t1": {"dollars_per_million": {"prompt": 10, "output": 50}}}')
    out = run("solve", PROMPT, *TOY, "--cards", str(cards), "--budget", "$0.02", "--method", "majority", "--json")[1]
    total = json.loads(out)["cost"]["total"]
    assert 0.01 < (10 * total["prompt_tokens"] + 50 * total["output_tokens"]) / 1e6 <= 0.02
    cards.write_text('{"toy/t2": {"params": 3}}')
    assert "Did you mean 'toy/t1'?" in refused("solve", PROMPT, *TOY, "--cards", str(cards))
