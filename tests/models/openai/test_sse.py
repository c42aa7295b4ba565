"""Event streams survive every way of cutting them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.models.openai import sse
from outthink.models.openai.sse import EventParser

texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=20)


def parse(data: bytes, cuts: list[int]) -> list[str]:
    parser, out, start = EventParser(), [], 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        out += parser.feed(data[start:cut])
        start = cut
    return out + parser.close()


@given(
    st.lists(texts, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10_000), max_size=12)
)
def test_events_are_the_same_wherever_the_bytes_are_cut(events, end, cuts):
    """Cuts fall inside UTF-8 sequences and between the CR and the LF of a line end too."""
    data = "".join(f"data: {event}{end}{end}" for event in events).encode()
    assert parse(data, cuts) == events


@given(st.lists(texts, min_size=1, max_size=3), st.lists(st.integers(0, 10_000), max_size=6))
def test_json_of_any_text_arrives_whole(words, cuts):
    data = json.dumps({"text": words}, ensure_ascii=False)
    assert json.loads(parse(f"data: {data}\n\n".encode(), cuts)[0]) == {"text": words}


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"", []),
        (b": keep-alive\n\n", []),
        (b"event: x\nid: 1\nretry: 3\ndata: a\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
        (b"data\n\n", [""]),
        (b"data: no empty line at the end", ["no empty line at the end"]),
        (b"data: a\n\n\n\n\ndata: b\n\n", ["a", "b"]),
        (b"data: \xff\n\n", ["�"]),
    ],
)
def test_the_odd_forms_of_an_event(data, events):
    assert parse(data, []) == events


def test_a_line_that_never_ends_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(sse, "LONGEST", 100)
    parser = EventParser()
    parser.feed(b"data: " + b"x" * 50)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        parser.feed(b"x" * 60)
