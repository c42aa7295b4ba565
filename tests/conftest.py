"""What holds for every test: no network, one thread, the same examples every time."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

# Before torch or transformers is imported by a test. Two cores are shared; a test that measures says so itself.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# `pytest --hypothesis-profile=explore` looks for new examples; everything else is repeatable and knows no clock.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")

if importlib.util.find_spec("outthink") and importlib.util.find_spec("outthink.testing.golden"):
    pytest_plugins = ["outthink.testing.golden"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class NetworkRefused(RuntimeError):
    """A test opened a socket that it may not open."""


class Sockets:
    """Whether the test that runs now may open sockets, and to where."""

    loopback = False


def refuse(address: object) -> None:
    """Raise NetworkRefused if `address` may not be used by the test that runs now."""
    if not Sockets.loopback:
        raise NetworkRefused(f"socket to {address!r}: mark the test with @pytest.mark.loopback to use 127.0.0.1")
    if isinstance(address, tuple) and address[0] not in LOOPBACK:
        raise NetworkRefused(f"socket to {address!r}: tests may reach {', '.join(LOOPBACK)} and nothing else")


def guarded(real: Callable[..., Any], where: int) -> Callable[..., Any]:
    """Return `real`, a method of `socket.socket` whose argument number `where` (-1: the last) is an address."""

    def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        refuse(args[where])
        return real(self, *args, **kwargs)

    return call


def guard_sockets() -> None:
    for name, where in (("connect", 0), ("connect_ex", 0), ("bind", 0), ("sendto", -1)):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name), where))
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse((host,))
        return resolve(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


guard_sockets()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    # Around the whole protocol, so that fixtures of a wider scope which start a server are covered too.
    Sockets.loopback = item.get_closest_marker("loopback") is not None
    try:
        return (yield)
    finally:
        Sockets.loopback = False
