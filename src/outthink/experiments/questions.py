"""What a comparison asks: a built-in task by name, or a JSONL file of {"id", "prompt", "answer"}."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from pathlib import Path

from outthink.core.errors import InvalidInput, unknown
from outthink.core.verdict import Problem
from outthink.experiments.answers import canonical, final_answer

BUILT_IN = {"word_problems": "outthink.tasks.word_problems", "countdown": "outthink.tasks.countdown"}
"""Task name -> module with `problems(split, limit=, seed=)`, `grade(problem, answer)` and `answer_of(text)`."""


@dataclass(frozen=True, slots=True)
class Question:
    """A problem as methods see it, and what the grader needs, which they never see."""

    problem: Problem
    reference: object


@dataclass(frozen=True, slots=True)
class Questions:
    """A task ready to be asked.

    name: as given. answer_of: text of a completion -> canonical answer or None. grade: reference, answer -> right?
    embedded: whether the embedded models were trained on prompts of this kind.
    """

    name: str
    items: Sequence[Question]
    answer_of: Callable[[str], str | None]
    grade: Callable[[object, str | None], bool]

    @property
    def digest(self) -> str:
        """A digest of every prompt and reference in order: two folders with the same one asked the same."""
        body = blake2b(digest_size=12)
        for item in self.items:
            body.update(repr((item.problem.id, item.problem.prompt, _reference(item.reference))).encode())
        return body.hexdigest()


def load(task: str, *, limit: int | None = None, seed: int = 0) -> Questions:
    """Return the questions of `task`: a built-in name, or the path of a JSONL file.

    limit: at most this many, from the start. seed: of a generated task; a file has none.
    Raises InvalidInput for an unknown name (with the closest match) or a file that cannot be used (file and line).
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}; ask at least 1 problem")
    if task in BUILT_IN:
        return _built_in(task, limit, seed)
    path = Path(task)
    if path.suffix in (".jsonl", ".json", ".ndjson") or "/" in task or path.exists():
        return read_jsonl(path, limit=limit)
    raise unknown("task", task, [*BUILT_IN, "FILE.jsonl"])


def read_jsonl(path: str | Path, *, limit: int | None = None) -> Questions:
    """Return the questions of a JSONL file; the whole file is checked, also beyond `limit`.

    Every line is an object with "prompt" and "answer" (text or a number) and an "id"; blank lines are passed over.
    Raises InvalidInput naming file and line if a line is not JSON, lacks a field, has an empty prompt or an id again.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}. Give a JSONL file or one of {_names()}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 JSONL") from None
    items: list[Question] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            item = _line(line, f"{path}:{number}")
            if item.problem.id in lines:
                first = lines[item.problem.id]
                raise InvalidInput(
                    f"{path}:{number}: id {item.problem.id!r} was used on line {first}; every id must be unique"
                )
            lines[item.problem.id] = number
            items.append(item)
    if not items:
        raise InvalidInput(f'{path} has no problems; write one {{"id", "prompt", "answer"}} object a line')
    return Questions(str(path), items[:limit], final_answer, lambda reference, answer: answer is not None
                     and canonical(answer) == reference)  # fmt: skip


def _line(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where}: not JSON ({error.msg} at column {error.colno}); one object a line") from None
    if not isinstance(row, dict):
        raise InvalidInput(f'{where}: a {type(row).__name__}; write an object {{"id", "prompt", "answer"}}')
    missing = [name for name in ("id", "prompt", "answer") if row.get(name) is None]
    if missing:
        have = ", ".join(map(repr, row)) or "no fields"
        raise InvalidInput(f"{where}: {' and '.join(map(repr, missing))} missing (there is {have})")
    name, prompt, answer = row["id"], row["prompt"], row["answer"]
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidInput(f"{where}: the prompt is empty; write the text that the model should answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InvalidInput(f"{where}: the answer is a {type(answer).__name__}; write text or a number")
    return Question(Problem(str(name), prompt), canonical(str(answer)))


def _built_in(task: str, limit: int | None, seed: int) -> Questions:
    module = import_module(BUILT_IN[task])
    natives: Iterable = module.problems("heldout", limit=limit, seed=seed)
    items = [Question(Problem(native.id, native.prompt), native) for native in natives]
    return Questions(task, items, module.answer_of, module.grade)


def _reference(reference: object) -> object:
    return getattr(reference, "answer", reference)


def _names() -> str:
    return ", ".join(BUILT_IN)
