"""The laws for backends, with servers of different manners below."""

import dataclasses

import pytest

from outthink.models.openai import OpenAI
from outthink.testing.conformance import LAWS, BackendCase

pytestmark = pytest.mark.loopback

MANNERS = {
    "good": {"continues": True, "names_stop": True, "min_p": True},
    "base model": {"chat": False, "stop": "keep"},
    "careless": {"chat": False, "stop": "ignore", "seed": False, "logprobs": False, "done": False},
    "uncounted": {"chat": False, "usage": False},
    "not streaming": {"chat": False, "stream": False, "stop": "token"},
}


@pytest.mark.parametrize("law", [pytest.param(law, id=law.__name__) for law in LAWS[BackendCase]])
@pytest.mark.parametrize("manners", MANNERS)
def test_the_laws_hold(server, law, manners):
    server.manners = dataclasses.replace(server.manners, **MANNERS[manners])
    law(BackendCase(lambda: OpenAI("m", base_url=server.url, concurrency=16), "openai/m", stop=" oak"))
