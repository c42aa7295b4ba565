"""A thread with an event loop and an HTTP session, and one streamed POST over it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from .failures import Broken, Place, refused
from .sse import EventParser
from .wire import Piece, piece

R = TypeVar("R")

KEEPALIVE = 4.0
"""Seconds an idle connection is kept. Less than the 5 s after which common servers hang up: a request sent over a
connection that is just being closed fails without anybody knowing whether it was served."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect; between two pieces of an answer (the first too); for a whole answer (None: no limit)."""

    connect: float = 10.0
    read: float = 120.0
    total: float | None = None


class Connection:
    """Owns the thread, the loop and the session. Works under any driver, inside a running loop too."""

    def __init__(self, *, base_url: str, api_key: str, timeouts: Timeouts, concurrency: int, proxies: bool) -> None:
        self.base_url, self._key, self._timeouts = base_url, api_key, timeouts
        self._concurrency, self._proxies = concurrency, proxies
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lock = threading.Lock()
        self._closed = False

    def soon(self, act: Callable[[], object]) -> None:
        """Call `act` in the thread (which is started when first needed), in the order of the calls."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the connection to {self.base_url} is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="outthink-http", daemon=True)
                self._thread.start()
            self._loop.call_soon_threadsafe(act)

    def wait_for(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a coroutine in the thread and return what it returns; not to be called from that thread."""
        out: Future[R] = Future()

        async def run() -> None:
            try:
                out.set_result(await work())
            except BaseException as error:
                out.set_exception(error)

        self.soon(lambda: asyncio.ensure_future(run()))
        return out.result()

    def close(self) -> None:
        """Cancel what is running, close the session, end the thread. May be called twice."""
        with self._lock:
            self._closed, loop, thread = True, self._loop, self._thread
            self._loop = None
        if loop is None or thread is None:
            return
        ended = asyncio.run_coroutine_threadsafe(self._end(), loop)
        ended.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        if threading.current_thread() is not thread:  # the garbage collector may run in any thread
            thread.join()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self._timeouts
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._concurrency + 2, keepalive_timeout=KEEPALIVE),
                timeout=aiohttp.ClientTimeout(
                    total=limits.total, sock_connect=limits.connect, connect=None, sock_read=limits.read
                ),
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                trust_env=self._proxies,
            )
        return self._session

    async def listing(self) -> list[dict[str, Any]]:
        """Return what `/models` lists; nothing if the server does not say (the path is optional in practice)."""
        try:
            async with self._get_session().get(self.base_url + "/models", allow_redirects=False) as response:
                data = json.loads(await response.read()) if response.status == 200 else {}
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
            return []
        rows = data.get("data") if isinstance(data, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    async def post(self, path: str, body: dict[str, Any], *, place: Place, now: float) -> AsyncIterator[Piece]:
        """Yield what the server answers, piece by piece; the last one ends the answer. Raises Broken."""
        sent = False
        try:
            async with self._get_session().post(self.base_url + path, json=body, allow_redirects=False) as response:
                sent = True
                if response.status != 200:
                    text = (await response.content.read(2**16)).decode("utf-8", "replace")
                    names = [str(row.get("id")) for row in await self.listing()] if response.status == 404 else []
                    raise refused(
                        response.status, text, headers=response.headers, place=place, now=now, models=tuple(names)
                    )
                if response.content_type == "text/event-stream":
                    async for item in _events(response, place):
                        yield item
                else:
                    yield _parsed(await response.read(), place)  # a server that does not stream answers at once
        except aiohttp.ClientConnectorDNSError as error:
            raise Broken(
                place.tell(f"no such host ({error.os_error}). Check the address."), retry=False, spent=False
            ) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise Broken(place.tell(f"no secure connection ({error})."), retry=False, spent=False) from None
        except aiohttp.ClientConnectorError as error:
            what = f"no connection ({error.os_error}). Is the server running, and is this its address?"
            raise Broken(place.tell(what), retry=True, spent=False) from None
        except aiohttp.ConnectionTimeoutError:
            what = f"no connection within {self._timeouts.connect:g} s. Is the server running?"
            raise Broken(place.tell(what), retry=True, spent=False) from None
        except TimeoutError:
            what = f"nothing came for {self._timeouts.read:g} s{' in the middle of an answer' if sent else ''}."
            if self._timeouts.total is not None:
                what = f"no whole answer within {self._timeouts.total:g} s, or {what}"
            raise Broken(
                place.tell(f"{what} Give it more time (timeouts), or fewer requests at once."), retry=True
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            what = f"the connection broke {'in the middle of' if sent else 'before'} the answer ({error})."
            raise Broken(place.tell(what), retry=True) from None


async def _events(response: aiohttp.ClientResponse, place: Place) -> AsyncIterator[Piece]:
    parser, ended = EventParser(), False
    try:
        async for chunk in response.content.iter_any():
            for data in parser.feed(chunk):
                if data.strip() == "[DONE]":
                    return
                item = _parsed(data.encode("utf-8", "surrogatepass"), place)
                ended = ended or item.reason is not None
                yield item
    except ValueError as error:
        raise Broken(place.tell(f"{error}; this is no answer of a model."), retry=False) from None
    for data in parser.close():
        if data.strip() == "[DONE]":
            return
        item = _parsed(data.encode("utf-8", "surrogatepass"), place)
        ended = ended or item.reason is not None
        yield item
    if not ended:
        raise Broken(place.tell("the answer was cut in the middle: no finish_reason and no [DONE] came."), retry=True)


def _parsed(data: bytes, place: Place) -> Piece:
    try:
        return piece(json.loads(data))
    except (ValueError, RecursionError) as error:
        shown = " ".join(data[:120].decode("utf-8", "replace").split())
        what = (
            f"this is not the JSON of an answer ({error}): {shown!r}. Is the base URL right? It ends in /v1 as a rule."
        )
        raise Broken(place.tell(what), retry=False) from None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
