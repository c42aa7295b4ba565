"""Where the tokens went: roles, the chosen completion, the tree and the waterfall add up."""

from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Draft, Sample, Score, Scored
from outthink.core.trace import Served
from outthink.experiments.breakdown import by_role, chosen_output
from outthink.experiments.search_tree import search_tree, shown
from outthink.experiments.view import view
from outthink.experiments.waterfall import waterfall

ROOT = Prefix("ask: ")


def served(request, reply, cost, status="done"):
    return Served(1, "m/0", 0, request, reply, cost, cost, status)


def drawn(parent, text, output, prompt=0):
    prefix = parent.extend(text)
    request = Sample(parent, "m", 0, max_tokens=50)
    return served(request, Draft(text, "stop", prefix), Cost.of("m", calls=1, prompt=prompt, output=output)), prefix


def events():
    a, first = drawn(ROOT, "one\n", 4, prompt=6)
    b, second = drawn(first, "two\n", 5)
    c, other = drawn(ROOT, "zero\n", 7)
    score = served(Score(second, "r"), Scored(0.9), Cost.of("r", calls=1, scores=1, prompt=9))
    late = served(Sample(ROOT, "m", 1), None, Cost.of("m", calls=1, output=3), "cancelled")
    again = served(Score(other, "r"), Scored(0.2), Cost.of("r", calls=1, scores=1, prompt=9))
    return [a, b, c, score, late, again]


def test_roles_add_up_to_the_whole():
    roles = by_role(events(), policy="m")
    assert set(roles) == {"generate", "verify"}
    assert Cost.sum(roles.values()) == Cost.sum(event.cost for event in events())
    assert by_role([events()[0]._replace(request=None)], policy="m").keys() == {"generate"}
    assert by_role(events()[:1], policy="other").keys() == {"judge"}


def test_the_chosen_completion_is_followed_to_its_root():
    assert chosen_output(events(), text="one\ntwo\n") == 9
    assert chosen_output(events(), text="zero\n") == 7
    assert chosen_output(events(), text=None) == 0
    assert chosen_output(events(), text="composed by the method") is None


def test_a_draft_that_came_twice_is_chosen_once():
    a, _ = drawn(ROOT, "one\n", 4)
    assert chosen_output([a, a], text="one\n") == 4
    (root,) = search_tree([a, a], text="one\n")
    assert (root.children[0].times, root.children[0].tokens) == (2, 8)


def test_the_tree_has_scores_and_the_chosen_path():
    (root,) = search_tree(events(), text="one\ntwo\n")
    assert [node.text for node in root.walk()] == ["ask: ", "one\n", "two\n", "zero\n"]
    assert [node.text for node in root.walk() if node.chosen] == ["ask: ", "one\n", "two\n"]
    assert [node.score for node in root.children] == [None, 0.2]
    kept, hidden = shown(root, 1)
    assert [node.text for node in kept] == ["one\n"] and hidden == 1
    assert search_tree([event._replace(request=None, reply=None) for event in events()]) == []


def test_the_waterfall_adds_up_to_every_token():
    bars = waterfall(events(), policy="m", text="one\ntwo\n")
    assert [(bar.name, bar.tokens) for bar in bars] == [
        ("prompt", 6), ("chosen completion", 9), ("thrown away", 10), ("verify", 18),
    ]  # fmt: skip
    assert sum(bar.tokens for bar in bars) == Cost.sum(event.cost for event in events()).tokens
    assert bars[2].before == 15
    assert ("generated", 19) in [(bar.name, bar.tokens) for bar in waterfall(events(), policy="m", text="?")]


def test_the_page_of_a_run_escapes_what_a_model_wrote():
    bad, _ = drawn(ROOT, "<script>alert(1)</script>", 3)
    page = view(
        [bad], answer="<b>", text="<script>alert(1)</script>", stopped="finished", policy="m", budget="9 tokens"
    )
    assert "<script>" not in page and "&lt;b&gt;" in page
