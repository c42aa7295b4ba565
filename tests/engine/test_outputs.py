"""What a step gives beside tokens: likeliest tokens, logits processors, rewards of a value head."""

import pytest
import torch

from outthink.core.errors import InvalidInput, Unsupported
from outthink.core.refs import Prefix
from outthink.core.request import Sample, Score
from outthink.engine.engine import Engine
from outthink.engine.llama import Llama
from outthink.testing.tiny_llama import tiny_llama

PROMPT = Prefix("the cat sat on the mat.\n")


def sample(seed=0, prefix=PROMPT, **knobs):
    return Sample(prefix, "m", seed, **{"max_tokens": 12} | knobs)


@pytest.fixture(scope="module")
def plain():
    config, weights, _ = tiny_llama()
    model = Llama(config)
    model.load_state_dict(weights)
    return model


def test_the_likeliest_tokens_are_told_at_every_place(engine, finish, plain):
    for seed in range(6):
        engine.submit(seed, sample(seed), top=4)
    for done in finish(engine).values():
        tokens = [*engine.vocabulary.encode(PROMPT.piece), *done.reply.tokens]
        with torch.no_grad():
            chances = plain.logits(plain.hidden(torch.tensor([tokens])))[0].log_softmax(-1)
        places = slice(len(tokens) - len(done.reply.tokens) - 1, len(tokens) - 1)
        values, ids = chances[places].topk(4)
        assert done.top[0].shape == done.top[1].shape == (len(done.reply.tokens), 4)
        assert (done.top[1] - values).abs().max() < 1e-4 and (done.top[0] == ids).float().mean() > 0.95


def test_a_processor_changes_what_is_drawn_and_sees_what_was(engine, finish):
    seen = []

    def odd_ids_only(tokens, logits):
        seen.append(tokens)
        return logits.masked_fill(torch.arange(len(logits)) % 2 == 0, float("-inf"))

    engine.submit("odd", sample(3), processor=odd_ids_only)
    engine.submit("free", sample(3))
    done = finish(engine)
    odd = done["odd"].reply.tokens
    assert odd and all(token % 2 for token in odd) and seen == [odd[:n] for n in range(len(seen))]
    assert any(token % 2 == 0 for token in done["free"].reply.tokens)


def test_a_processor_that_raises_fails_its_own_request_only(engine, finish):
    def broken(tokens, logits):
        if len(tokens) == 1:
            raise KeyError("rule 7")
        return logits

    engine.submit("bad", sample(1), processor=broken)
    engine.submit("good", sample(1))
    done = finish(engine)
    assert isinstance(done["bad"].error, KeyError) and done["bad"].reply is None
    assert done["good"].reply is not None and engine.usage().logical_bytes == 0


def test_a_value_head_judges_drafts_on_the_way(finish, plain):
    """Rewards are those of the plain model's hidden states, and a draft's score computes its last token at most."""
    config, _, _ = tiny_llama()
    weight, bias = torch.randn(config.hidden_size, generator=torch.Generator().manual_seed(2)), torch.tensor([0.3])
    engine = Engine(*tiny_llama(), rows=16, value_head=(weight, bias))
    for seed in range(8):
        engine.submit(seed, sample(seed, stop=("a",)))
    drafts = [done.reply for done in finish(engine).values() if done.reply.tokens]
    for number, draft in enumerate(drafts):
        engine.submit(number, Score(draft.prefix, "m", step="\n"))
    scores = finish(engine)
    for number, draft in enumerate(drafts):
        tokens = [*engine.vocabulary.encode(PROMPT.piece), *draft.tokens]
        with torch.no_grad():
            rewards = (plain.hidden(torch.tensor([tokens]))[0] @ weight + bias).sigmoid()
        assert scores[number].reply.value == pytest.approx(float(rewards[-1]), abs=1e-4)
        ends = [i for i, token in enumerate(tokens) if b"\n" in engine.vocabulary.spelled[token]]
        first = len(tokens) - len(draft.tokens)
        wanted = [float(rewards[i]) for i in sorted({*(i for i in ends if i >= first), len(tokens) - 1})]
        assert scores[number].reply.steps == pytest.approx(wanted, abs=1e-4)
        assert scores[number].computed == 0, "the last token was paid for by who drew it"


def test_a_model_without_a_value_head_says_what_it_gives(engine):
    with pytest.raises(Unsupported, match="log-probabilities, not rewards"):
        engine.submit(0, Score(PROMPT, "m"))


def test_a_value_head_leaves_log_probabilities_alone(finish):
    config, _, _ = tiny_llama()
    engine = Engine(*tiny_llama(), value_head=(torch.zeros(config.hidden_size), torch.zeros(1)))
    text = PROMPT.extend("the dog")
    engine.submit("reward", Score(text, "m"))
    engine.submit("chance", Score(text, "m", of="logprob"))
    done = finish(engine)
    assert done["reward"].reply.value == 0.5 and done["chance"].reply.value < -1


def test_a_value_head_of_the_wrong_size_is_refused():
    with pytest.raises(InvalidInput, match="value head"):
        Engine(*tiny_llama(), value_head=(torch.zeros(3), torch.zeros(1)))
