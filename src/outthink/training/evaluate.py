"""Measure a reasoner, and a reward model on its samples, on problems of one split."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from outthink.engine.llama import Llama
from outthink.tasks.word_problems import WordProblem, answer_of, check_steps, grade
from outthink.training.metrics import area_under_curve, best_right, coverage, mean, vote_share
from outthink.training.rollouts import rewards, sample
from outthink.training.tokenizer import line_end


@dataclass(frozen=True, slots=True)
class Attempts:
    """The samples of one problem: tokens and canonical answers, aligned; `prompt` in tokens."""

    problem: WordProblem
    prompt: list[int]
    tokens: list[list[int]]
    answers: list[str | None]


def attempt(
    model: Llama, tokenizer: Tokenizer, *, problems: list[WordProblem], n: int, temperature: float, seed: int
) -> list[Attempts]:
    """Return `n` samples of the language model for each problem."""
    prompts = [encoding.ids for encoding in tokenizer.encode_batch([problem.prompt for problem in problems])]
    drawn = sample(model, prompts, n=n, temperature=temperature, seed=seed)
    return [
        Attempts(problem, prompt, tokens, [answer_of(tokenizer.decode(row)) for row in tokens])
        for problem, prompt, tokens in zip(problems, prompts, drawn, strict=True)
    ]


def reasoner_report(attempts: list[Attempts]) -> dict[str, float]:
    """Return pass@1 per level and on the mean, coverage and majority at the number of samples, output tokens."""
    n = len(attempts[0].tokens)
    by_level = defaultdict(list)
    for one in attempts:
        by_level[one.problem.level].append(_accuracy(one))
    report = {f"pass@1 level {level}": mean(values) for level, values in sorted(by_level.items())}
    report["pass@1"] = mean([_accuracy(one) for one in attempts])
    report["unparsable"] = mean([answer is None for one in attempts for answer in one.answers])
    report["output tokens"] = mean([len(row) for one in attempts for row in one.tokens])
    for k in (4, 16, n):
        report[f"coverage@{k}"] = mean([coverage(_rights(one), n, k=k) for one in attempts])
        report[f"majority@{k}"] = mean(
            _resampled(attempts, k, lambda one, rows: vote_share([one.answers[i] for i in rows], one.problem.answer))
        )
    return report


def reward_report(model: Llama, attempts: list[Attempts], *, tokenizer: Tokenizer) -> dict[str, float]:
    """Return how well rewards tell right from wrong, and what choosing by them is worth.

    step AUC: reward at each step's line end against "right so far"; first-error AUC: only steps whose earlier steps
    are all right; outcome AUC: reward at the end of the answer line against the grade, pooled, and within each
    problem on the mean.  best-of-k by the last reward and by the least of the line ends; weighted vote by the last.
    """
    n = len(attempts[0].tokens)
    scored = rewards(model, [[*one.prompt, *row] for one in attempts for row in one.tokens])
    newline = line_end(tokenizer)
    steps, firsts, outcomes = list[tuple[float, bool]](), list[tuple[float, bool]](), list[tuple[float, bool]]()
    within: list[float] = []
    last: dict[str, list[float]] = {}
    least: dict[str, list[float]] = {}
    for index, one in enumerate(attempts):
        finals, lows = [], []
        for row, values in zip(one.tokens, scored[index * n : (index + 1) * n], strict=True):
            ends = [i for i, token in enumerate(row) if token == newline] or [len(row) - 1]
            at_ends = [values[len(one.prompt) + end] for end in ends]
            verdicts = check_steps(one.problem, tokenizer.decode(row[: ends[-1] + 1]))
            lines = list(zip(at_ends, verdicts, strict=False))[:-1]
            steps += lines
            firsts += [pair for at, pair in enumerate(lines) if at == 0 or lines[at - 1][1]]
            finals.append(at_ends[-1])
            lows.append(min(at_ends))
        graded = [grade(one.problem, answer) for answer in one.answers]
        outcomes += zip(finals, graded, strict=True)
        within.append(area_under_curve(finals, graded))
        last[one.problem.id], least[one.problem.id] = finals, lows
    report = {
        "step AUC": _area(steps),
        "first-error AUC": _area(firsts),
        "outcome AUC pooled": _area(outcomes),
        "outcome AUC within": mean(within),
    }
    for k in (4, 16, n):
        for name, chosen in (("last", last), ("min", least)):
            report[f"best-of-{k} {name}"] = mean(
                _resampled(
                    attempts,
                    k,
                    lambda one, rows, by=chosen: best_right(
                        [one.answers[i] for i in rows], one.problem.answer, scores=[by[one.problem.id][i] for i in rows]
                    ),
                )
            )
        report[f"weighted@{k}"] = mean(
            _resampled(
                attempts,
                k,
                lambda one, rows: vote_share(
                    [one.answers[i] for i in rows], one.problem.answer, weights=[last[one.problem.id][i] for i in rows]
                ),
            )
        )
    return report


def _accuracy(one: Attempts) -> float:
    return _rights(one) / len(one.answers)


def _rights(one: Attempts) -> int:
    return sum(grade(one.problem, answer) for answer in one.answers)


def _area(pairs: list[tuple[float, bool]]) -> float:
    return area_under_curve([score for score, _ in pairs], [label for _, label in pairs])


def _resampled(attempts: list[Attempts], k: int, value) -> list[float]:
    """Return for each problem the mean of value(attempts, rows) over 20 seeded draws of k rows without repeats."""
    results = []
    for one in attempts:
        n = len(one.tokens)
        rng = Random(f"resample {one.problem.id} {k}")
        draws = [range(n)] if k >= n else [rng.sample(range(n), k) for _ in range(20)]
        results.append(mean([value(one, list(rows)) for rows in draws]))
    return results
