"""Several engines as one backend: the laws, where requests go, and what they share."""

import gc
import threading
from dataclasses import replace

import pytest
import torch

from outthink.core.errors import InvalidInput
from outthink.core.refs import Prefix, Ref
from outthink.core.request import Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.verbs import fitting
from outthink.engine.engine import Engine
from outthink.models.engine import EngineBackend
from outthink.models.open import open_model
from outthink.models.replicas import Replicas
from outthink.testing import conformance
from outthink.testing.conformance.desk import Desk
from outthink.testing.conformance.drafts import rewards_are_probabilities
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")


def replicas(count=2, *, rows=8, reward=False, **options):
    engine = Engine(*tiny_llama(reward=reward), rows=rows, **options)
    return Replicas(EngineBackend(engine, name="m"), count=count, threads=1)


CASE = conformance.BackendCase(replicas, "m", prompts=("the cat\n", "the dog ate", "on the mat,"))
test_replicas = conformance.laws(CASE)
test_deterministic_replicas = conformance.laws(replace(CASE, make=lambda: replicas(3, deterministic=True)))


def test_replicas_of_a_reward_model():
    rewards_are_probabilities(replace(CASE, make=lambda: replicas(reward=True), reward="m"))


@pytest.fixture
def model():
    model = replicas(rows=64)
    yield model
    model.close()


def placed(desk, requests):
    """Offer requests while no engine moves; return where they went, in order, and their tickets."""
    model, gate = desk.backend, threading.Event()
    steps = [backend.step for backend in model.backends]
    for backend, step in zip(model.backends, steps, strict=True):
        backend.step = lambda step=step: (gate.wait(30), step())[1]
    slips = [desk.offer(request) for request in requests]
    places = [model._flights[slip].place for slip in slips]
    gate.set()
    desk.finish()
    for backend, step in zip(model.backends, steps, strict=True):
        backend.step = step
    return places, slips


def sample(prefix, seed=0, tokens=40):
    return Sample(prefix, "m", seed, max_tokens=tokens, temperature=0.0)


def test_weights_and_texts_are_held_once_and_memory_and_names_are_not(model):
    first, second = (backend.engine for backend in model.backends)
    assert first.runner is second.runner and first.links is second.links
    assert first.forest is not second.forest and first.names is not second.names
    assert model.room() == 128


def test_other_prompts_go_to_whoever_has_least_to_do(model):
    desk = Desk(model)
    places, _ = placed(desk, [sample(Prefix(f"the cat {i}")) for i in range(6)])
    assert places == [0, 1, 0, 1, 0, 1]
    assert model._requests == model._work == [0, 0] and not model._flights and not model._owners


def test_a_text_goes_on_where_it_was_written_and_so_do_its_siblings(model):
    desk = Desk(model)
    (end,) = desk.serve([sample(PROMPT, tokens=5)])
    held = [PROMPT.digest in backend.engine.names._count for backend in model.backends]
    assert held.count(True) == 1
    others = [sample(Prefix(f"the {i} rats")) for i in range(3)]
    children = [sample(end.reply.prefix.extend(f"the dog {i}")) for i in range(4)]
    places, slips = placed(desk, [*others, *children, sample(PROMPT)])
    assert set(places[3:]) == {held.index(True)}
    assert all(desk.settled[slip].cost.total("recomputed") == 0 for slip in slips)


def test_a_prompt_with_many_samples_is_shared_out_once_its_holder_is_behind(model):
    desk = Desk(model)
    places, _ = placed(desk, [sample(PROMPT, seed) for seed in range(64)])
    assert len(set(places[:17])) == 1, "the first stay together"
    assert 20 <= places.count(places[0]) <= 44, "both have about half in the end"


def test_what_is_held_is_forgotten_with_the_prefix(model):
    desk = Desk(model)
    (end,) = desk.serve([sample(Prefix("the rat ran"), tokens=3)])
    assert len(model._held) >= 2
    desk.settled.clear()
    del end
    desk.serve([sample(PROMPT, tokens=1)])  # the engine's last step still has its draft at hand
    gc.collect()
    assert {prefix.chain()[0] for prefix in model._held} == {PROMPT}


def test_hidden_states_are_found_in_the_engine_that_has_them(model):
    desk = Desk(model)
    _, slips = placed(desk, [Sample(Prefix(f"the cat {i}"), "m", i, max_tokens=3, hidden=True) for i in range(9)])
    ends = [desk.settled[slip] for slip in slips if desk.settled[slip].reply.tokens]
    refs = [end.reply.hidden for end in ends]
    assert len(set(refs)) == len(refs) and len({ref.backend for ref in refs}) == 2
    for end in ends:
        assert model.hidden(end.reply.hidden).shape[0] == len(end.reply.tokens)
    with pytest.raises(InvalidInput, match="ask the backend"):
        model.hidden(Ref("other", "a", 1))


async def search(width, levels):
    states = [PROMPT] * width
    for level in range(levels):
        drafts = await fitting(
            Sample(state, "m", 100 * level + i, max_tokens=8, stop=("\n",)) for i, state in enumerate(states)
        )
        states = [draft.prefix for draft in drafts if draft is not None]
    return [state.text for state in states]


def test_budgets_hold_and_one_run_uses_all_engines():
    model = replicas(rows=32)
    runtime = Runtime({"m": model})
    run = runtime.run(search(40, 2), budget="300 tokens")
    assert 230 < run.cost.tokens <= 300 and not run.overrun and run.exact
    assert all(backend.engine.computed for backend in model.backends)
    assert run.gauges.kv_peak >= model.backends[0].engine.forest.pages.page_bytes * 2
    runtime.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "outthink-backend"]


def test_the_memory_of_a_run_is_that_of_all_engines(model):
    requests = [sample(Prefix("the cat " * 9)), sample(Prefix("the dog ate " * 3))]
    desk = Desk(model)
    places, slips = placed(desk, requests)
    alone = []
    for request in requests:
        one = replicas(1)
        alone.append(Desk(one).serve([request])[0].kv)
        one.close()
    assert places == [0, 1] and alone[0] != alone[1] and min(alone) > 0
    assert max(desk.settled[slip].kv for slip in slips) == sum(alone)


def test_deterministic_texts_do_not_depend_on_how_many_engines_there_are():
    texts = []
    for count in (1, 3):
        model = replicas(count, rows=32, deterministic=True)
        texts.append(Runtime({"m": model}).run(search(40, 2)).state)
        model.close()
    assert texts[0] == texts[1]


def test_threads_are_each_engines_own():
    before = torch.get_num_threads()
    seen = []
    model = Replicas(EngineBackend(Engine(*tiny_llama()), name="m"), count=2, threads=1)
    for backend in model.backends:
        step = backend.step
        backend.step = lambda step=step: (seen.append((threading.get_ident(), torch.get_num_threads())), step())[1]
    Desk(model).serve(sample(Prefix(f"the {i}")) for i in range(4))
    model.close()
    assert {threads for _, threads in seen} == {1} and len({thread for thread, _ in seen}) == 2
    assert torch.get_num_threads() == before


def test_replicas_are_opened_by_name_and_share_the_memory():
    pytest.importorskip("torch")
    one, two = (open_model("embedded/reasoner", replicas=count, kv_bytes=1 << 26) for count in (1, 2))
    counts = [backend.engine.forest.pages.count for backend in two.backends]
    assert counts == [one.engine.forest.pages.count // 2] * 2
    (end,) = Desk(two).serve([Sample(Prefix("1+1="), "embedded/reasoner", 0, max_tokens=4)])
    assert end.reply.text
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("toy/t1", {"replicas": 2}, "replicas are of engines"),
        ("embedded/reasoner", {"replicas": 0}, "0 replicas"),
        ("embedded/reasoner", {"kv_bytes": 1 << 60}, "this machine has"),
    ],
)
def test_what_cannot_be_is_explained(spec, options, words):
    with pytest.raises(InvalidInput, match=words):
        open_model(spec, **options)


def test_a_score_follows_its_prompt():
    model = replicas(reward=True, rows=64)
    desk = Desk(model)
    places, _ = placed(desk, [Score(PROMPT.extend(f"cat {i}\n"), "m", step="\n") for i in range(8)])
    assert len(set(places)) == 1
    model.close()
