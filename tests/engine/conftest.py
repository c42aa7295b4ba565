import pytest
import torch

from outthink.engine.engine import Engine
from outthink.testing.tiny_llama import tiny_llama


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests share two cores with each other: threads that wait for each other would only make them slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def engine():
    return Engine(*tiny_llama(), rows=16)


@pytest.fixture
def judge():
    return Engine(*tiny_llama(reward=True, seed=1), rows=16)


def drain(engine):
    """Step until nothing is left; return what finished by key."""
    done = {}
    for _ in range(10_000):
        if not len(engine):
            return done
        for finished in engine.step():
            assert finished.key not in done
            done[finished.key] = finished
    raise AssertionError("the engine does not finish")


@pytest.fixture
def finish():
    return drain
