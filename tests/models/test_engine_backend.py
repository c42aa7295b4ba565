"""The engine as a backend: the laws, exact bounds and costs, hidden states, life in a thread and in a runtime."""

import gc
import threading
from dataclasses import dataclass, replace

import pytest
import torch

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.monitor import GO
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.core.runtime import Runtime
from outthink.core.verbs import fitting
from outthink.engine.checkpoint import save_checkpoint
from outthink.engine.engine import Engine
from outthink.models.engine import EngineBackend
from outthink.models.threaded import Threaded
from outthink.testing import conformance
from outthink.testing.conformance.desk import Desk, Slip
from outthink.testing.conformance.drafts import rewards_are_probabilities
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def backend(**options):
    shape = {name: options.pop(name) for name in ("reward", "context") if name in options}
    return EngineBackend(Engine(*tiny_llama(**shape), rows=8, **options), name="m")


CASE = conformance.BackendCase(backend, "m", prompts=("the cat\n", "the dog ate", "on the mat,"))
test_engine = conformance.laws(CASE)
test_deterministic_engine = conformance.laws(replace(CASE, make=lambda: backend(deterministic=True)))
test_engine_in_a_thread = conformance.laws(replace(CASE, make=lambda: Threaded(backend())))


def test_reward_model_backend():
    rewards_are_probabilities(replace(CASE, make=lambda: backend(reward=True), reward="m"))


def length(text, model):
    return len(model.engine.vocabulary.encode(text))


def test_costs_are_exact_to_the_position():
    """prompt: what is new; output: what was drawn; attended: every position of both, with the context before it."""
    model = backend()
    desk = Desk(model)
    first = Sample(PROMPT, "m", 1, max_tokens=9)
    (end,) = desk.serve([first])
    p, drawn = length(PROMPT.piece, model), end.cost.total("output")
    expected = {"calls": 1, "prompt": p, "output": drawn, "attended": sum(range(1, p + drawn + 1))}
    assert end.cost.nonzero() == {"m": expected}
    child = end.reply.prefix.extend("the dog")
    (more,) = desk.serve([Sample(child, "m", 2, max_tokens=4)])
    new, held = length("the dog", model), model.engine.links.of(end.reply.prefix).end
    got = more.cost.total("output")
    assert more.cost.total("prompt") == new
    assert more.cost.total("attended") == sum(held + i for i in range(1, new + got + 1))
    assert more.cost.total("cached") == more.cost.total("recomputed") == 0


def test_the_bound_is_clipped_to_the_context():
    model = backend(context=64)
    request = Sample(PROMPT, "m", 0, max_tokens=1_000)
    assert model.bound(Slip(request, "a", set()), request).total("output") == 64 - length(PROMPT.piece, model)
    with pytest.raises(InvalidInput, match="room for"):
        model.bound(Slip(request, "a", set()), replace(request, prefix=Prefix("cat " * 100)))


def test_another_run_pays_for_a_shared_prompt_and_is_told_that_it_was_cached():
    model = backend()
    Desk(model).serve([Sample(PROMPT, "m", 1, max_tokens=3)])
    (end,) = Desk(model).serve([Sample(PROMPT, "m", 2, max_tokens=3)])
    assert end.cost.total("prompt") == end.cost.total("cached") == length(PROMPT.piece, model)


def test_what_was_let_go_of_is_computed_again_and_counted_apart():
    model = backend()
    desk = Desk(model)
    (end,) = desk.serve([Sample(PROMPT, "m", 1, max_tokens=6, stop=())])
    model.engine.forest.clear()
    (again,) = desk.serve([Sample(end.reply.prefix, "m", 2, max_tokens=3)])
    assert again.cost.total("prompt") == 0 and again.cost.tokens == again.cost.total("output")
    assert again.cost.total("recomputed") == model.engine.links.of(end.reply.prefix).end


def test_cancelled_work_pays_its_prompt_and_what_was_drawn():
    model = backend()
    desk = Desk(model)
    slip = desk.offer(Sample(PROMPT, "m", 0, max_tokens=50, temperature=0.0))
    for _ in range(3):
        desk.turn()
    model.cancel(slip)
    desk.finish()
    assert desk.settled[slip].cost.total("output") == 3
    assert desk.settled[slip].cost.total("prompt") == length(PROMPT.piece, model)


def test_whoever_reads_along_gets_the_text_as_it_is_written_and_others_nothing():
    model = backend()
    desk = Desk(model)
    slips = [desk.offer(Sample(PROMPT, "m", seed, max_tokens=20), paid=3 if seed % 2 else None) for seed in range(6)]
    slips[0].watched = False
    pieces = {slip: [] for slip in slips}
    while desk.flying:
        before = dict(desk.streamed)
        desk.turn()
        for slip, text in desk.streamed.items():
            pieces[slip].append(text[len(before.get(slip, "")) :])
        for slip in list(desk.paused):
            desk.resume(slip, more=5)
    assert slips[0] not in desk.streamed
    for slip in slips[1:]:
        assert "".join(pieces[slip]) == desk.settled[slip].reply.text
    assert max(sum(map(bool, said)) for said in pieces.values()) > 3


def test_the_memory_of_a_run_counts_what_its_requests_share_once():
    """Eight texts of one prompt of four full pages, each with a page of its own when it writes; another run beside."""
    model = backend()
    prompt = Prefix("q" * 64)
    page, desk = model.engine.forest.pages.page_bytes, Desk(model)
    ends = desk.serve(Sample(prompt, "m", seed, max_tokens=8, temperature=0.0) for seed in range(8))
    assert all(len(end.reply.tokens) > 2 for end in ends)
    assert max(end.kv for end in ends) == (4 + 8) * page
    (alone,) = Desk(model).serve([Sample(prompt, "m", 1, max_tokens=8, temperature=0.0)])
    assert alone.kv == 5 * page


def test_hidden_states_are_read_by_ref_and_freed_with_their_draft():
    model = backend()
    desk = Desk(model)
    (end,) = desk.serve([Sample(PROMPT, "m", 1, max_tokens=6, hidden=True)])
    ref, tokens = end.reply.hidden, len(end.reply.tokens)
    assert model.hidden(ref).shape == (tokens, model.engine.config.hidden_size)
    desk.settled.clear()
    del end
    gc.collect()
    model.step()
    with pytest.raises(InvalidInput, match="not held"):
        model.hidden(ref)


def test_capabilities_are_those_of_the_model():
    assert {"sample", "seed", "hidden", "monitor", "force", "prefix"} <= backend().capabilities
    judge = backend(reward=True)
    assert judge.capabilities == {"score", "prefix"}
    with pytest.raises(Unsupported):
        judge.bound(Slip(None, "a", set()), Sample(PROMPT, "m", 0))
    with pytest.raises(Unsupported):
        backend().bound(Slip(None, "a", set()), Score(PROMPT, "m"))


def test_the_card_counts_parameters_and_attention():
    model = backend()
    assert model.card.params == sum(weight.numel() for weight in tiny_llama()[1].values())
    assert model.card.attention == 4 * 2 * 4 * 16


def test_a_broken_checkpoint_is_a_usage_error(tmp_path):
    config, weights, tokenizer = tiny_llama()
    save_checkpoint(tmp_path, config, weights=weights, tokenizer=tokenizer)
    EngineBackend.load(tmp_path, name="engine/x").close()
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInput, match="engine/x"):
        EngineBackend.load(tmp_path, name="engine/x")


async def search(width, levels):
    """Grow `width` drafts a few steps each, from one prompt."""
    states = [PROMPT] * width
    for level in range(levels):
        drafts = await fitting(
            Sample(state, "m", 100 * level + i, max_tokens=8, stop=("\n",)) for i, state in enumerate(states)
        )
        states = [draft.prefix for draft in drafts if draft is not None]
        if not states:
            break
    return states


@pytest.mark.parametrize("threaded", [False, True])
def test_budgets_hold_in_a_runtime(threaded):
    model = backend()
    runtime = Runtime({"m": Threaded(model) if threaded else model})
    run = runtime.run(search(6, 4), budget="70 tokens")
    assert 50 < run.cost.tokens <= 70 and not run.overrun and run.exact
    free = runtime.run(search(6, 4))
    assert free.cost.total("prompt") == length(PROMPT.piece, model)
    assert free.cost.total("recomputed") == 0
    runtime.close()


@dataclass(frozen=True)
class Signal:
    """A monitor that says when the first token has been drawn."""

    event: object

    def start(self):
        return 0

    def step(self, memory, text, logprob):
        self.event.set()
        return memory, GO

    def __hash__(self):
        return 0


def test_a_thread_that_breaks_fails_what_is_in_flight_at_its_bound():
    model = backend()
    desk = Desk(Threaded(model))
    started = threading.Event()
    model.engine._scheduler._runner = None  # the next step raises
    slip = desk.offer(Sample(PROMPT, "m", 0, max_tokens=50, monitor=Signal(started)))
    desk.finish()
    end = desk.settled[slip]
    assert end.failure is not None and not end.exact and end.cost == slip.bound
    late = desk.offer(Sample(PROMPT, "m", 1))
    desk.finish()
    assert "open the model again" in desk.settled[late].failure.message
    desk.backend.close()


def test_closing_a_thread_in_mid_flight_ends_it():
    model = Threaded(backend())
    desk = Desk(model)
    started = threading.Event()
    desk.offer(Sample(PROMPT, "m", 0, max_tokens=100, monitor=Signal(started)))
    assert started.wait(30)
    model.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "outthink-backend"]
    with pytest.raises(InvalidInput, match="closed"):
        model.submit(Slip(None, "a", set()), Sample(PROMPT, "m", 0))


def test_a_backend_that_works_on_its_own_needs_no_thread():
    with pytest.raises(InvalidInput, match="thread"):
        Threaded(Threaded(backend()))
