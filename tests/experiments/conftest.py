"""A small file of toy problems, and what is right."""

import json

import pytest

from outthink.models.toy import toy_key, toy_problems


@pytest.fixture
def toy_file(tmp_path):
    path = tmp_path / "toy.jsonl"
    rows = [{"id": p.id, "prompt": p.prompt, "answer": toy_key(p)} for p in toy_problems(6)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return path
