"""A real HTTP server on 127.0.0.1 that speaks the protocol, honestly or as a test wants it to misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from outthink.core.backend import Progress, Settled
from outthink.core.cost import Cost
from outthink.core.refs import Prefix
from outthink.core.request import Sample
from outthink.models.openai import OpenAI, Timeouts

WORDS = "red green blue seven eleven oak pine river stone glass paper cloud lamp".split()


def next_word(context: str, seed: int | None) -> str:
    """Return the next token of the server's language model: a word, or "" for the end of the text."""
    digest = hashlib.blake2b(f"{seed}|{context}".encode(), digest_size=4).digest()
    number = int.from_bytes(digest, "big")
    return "" if number % 29 == 0 and len(context) > 400 else " " + WORDS[number % len(WORDS)]


@dataclass
class Manners:
    """What the server does with what it is asked."""

    stop: str = "strip"  # keep, token (keep, to the end of the token), ignore
    names_stop: bool = False
    include_flag: bool = False  # heeds include_stop_str_in_output
    logprobs: bool = True
    seed: bool = True
    greedy_only: bool = False
    min_p: bool = False
    chat: bool = True
    completions: bool = True
    continues: bool = False
    bare: bool = False  # the chat template is the prompt alone
    stream: bool = True
    usage: bool = True
    done: bool = True
    known: frozenset[str] | None = None  # other fields are answered with 422
    usage_of: Callable[[dict[str, Any]], Any] = lambda usage: usage


Script = Callable[[web.Request, dict[str, Any]], Any]


@dataclass
class Server:
    """`asked` holds the bodies of all requests; `script` holds handlers that answer the next ones instead."""

    url: str = ""
    manners: Manners = field(default_factory=Manners)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    script: list[Script] = field(default_factory=list)
    models: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": "m", "max_model_len": 4000}]})
    drops: int = 0  # clients that left in the middle of an answer
    served: int = 0  # tokens generated and prompts read, all told
    dropped: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.reached.set()
        if self.script:
            try:
                return await self.script.pop(0)(request, body)
            except (ConnectionError, asyncio.CancelledError):
                self.drops += 1
                self.dropped.set()
                raise
        return await self.answer(request, body)

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        how, chat = self.manners, "messages" in body
        if not (how.chat if chat else how.completions):
            return web.json_response({"error": {"message": "no chat template"}}, status=500 if chat else 404)
        unknown = set(body) - how.known if how.known is not None else set()
        if unknown:
            return web.json_response({"detail": f"Unexpected fields in the request: {unknown}"}, status=422)
        prompt = self.render(body) if chat else body["prompt"]
        stops = [] if how.stop == "ignore" else body.get("stop", [])
        greedy = body.get("temperature", 1) == 0 or how.greedy_only or (how.min_p and body.get("min_p") == 1)
        seed = None if greedy else body.get("seed") if how.seed else len(self.asked) * 7 + self.served
        text, tokens, reason, stopped = "", [], "length", None
        while len(tokens) < body.get("max_tokens", body.get("max_completion_tokens", 16)) and reason == "length":
            word = next_word(prompt + text, seed)
            if not word:
                reason = "stop"
                break
            tokens.append(word)
            text += word
            for stop in stops:
                if (at := text.find(stop)) >= 0:
                    keep = how.stop == "keep" or (how.include_flag and body.get("include_stop_str_in_output"))
                    reason, stopped = "stop", stop
                    if how.stop != "token":
                        text = text[: at + (len(stop) if keep else 0)]
        usage = {"prompt_tokens": len(prompt.split()) + 3, "completion_tokens": len(tokens)}
        usage["total_tokens"] = sum(usage.values())
        self.served += usage["total_tokens"]
        rows = [{"token": t, "logprob": -0.5 - i} for i, t in enumerate(tokens)]
        pieces = [tokens[i] for i in range(len(tokens))]
        if text != "".join(tokens):
            pieces, rest = [], text
            for token in tokens:
                pieces.append(rest[: len(token)])
                rest = rest[len(token) :]
        end = {"finish_reason": reason} | ({"stop_reason": stopped} if how.names_stop else {})
        shown = how.usage_of(usage) if how.usage else None
        if not (how.stream and body.get("stream")):
            return web.json_response(document(chat, text, rows if self.wants(body) else None, end, shown))
        events = [
            chunk(chat, piece, [row] if self.wants(body) else None, {"finish_reason": None})
            for piece, row in zip(pieces, rows, strict=True)
        ] + [chunk(chat, "", None, end)]
        if shown is not None and body.get("stream_options", {}).get("include_usage"):
            events.append({"choices": [], "usage": shown})
        response = await sse(request)
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if how.done:
            await response.write(b"data: [DONE]\n\n")
        return response

    def reply(self, status: int, text: str, headers: dict[str, str] | None = None) -> Script:
        """Answer with this status and text."""

        async def act(request: web.Request, body: dict[str, Any]) -> web.Response:
            return web.Response(
                status=status, text=text, headers={"Content-Type": "application/json"} | (headers or {})
            )

        return act

    def stream(self, events: list[Any], *, then: str) -> Script:
        """Stream `events` (JSON, or bytes as they are), then "end", "cut" the connection, or "hang" until it is cut."""

        async def act(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            response = await sse(request)
            for event in events:
                raw = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
                await response.write(raw)
            if then == "hang":
                await asyncio.Event().wait()
            if then == "cut":
                assert request.transport is not None
                request.transport.close()
            return response

        return act

    def late(self, seconds: float) -> Script:
        """Answer as always, after a while."""

        async def act(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            await asyncio.sleep(seconds)
            return await self.answer(request, body)

        return act

    def hang(self) -> Script:
        """Never answer."""

        async def act(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets the event")

        return act

    def render(self, body: dict[str, Any]) -> str:
        *_, last = body["messages"]
        if self.manners.bare and last["role"] == "user":
            return last["content"]
        text = "".join(f"<{m['role']}> {m['content']}\n" for m in body["messages"] if m["role"] != "assistant")
        if last["role"] == "assistant" and self.manners.continues and body.get("continue_final_message"):
            return text + "<assistant>" + last["content"]
        if last["role"] == "assistant":
            text += f"<assistant> {last['content']}\n"
        return text + "<assistant>"

    def wants(self, body: dict[str, Any]) -> bool:
        return self.manners.logprobs and bool(body.get("logprobs"))

    async def list(self, request: web.Request) -> web.Response:
        if isinstance(self.models, int):
            return web.Response(status=self.models, text="offline")
        return web.json_response(self.models)


def logprobs(chat: bool, rows: list[dict[str, Any]] | None) -> Any:
    if rows is None:
        return None
    return {"content": rows} if chat else {
        "tokens": [r["token"] for r in rows], "token_logprobs": [r["logprob"] for r in rows]
    }  # fmt: skip


def document(chat: bool, text: str, rows: Any, end: dict[str, Any], usage: Any) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    out = {"choices": [{"index": 0, **said, "logprobs": logprobs(chat, rows), **end}]}
    return out | ({"usage": usage} if usage is not None else {})


def chunk(chat: bool, text: str, rows: Any, end: dict[str, Any]) -> dict[str, Any]:
    said = {"delta": {"content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, **said, "logprobs": logprobs(chat, rows), **end}]}


async def sse(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server; its well-behaved answers follow `manners`."""
    server, loop, ready = Server(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.handle)
        app.router.add_post("/v1/completions", server.handle)
        app.router.add_get("/v1/models", server.list)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(5)
    yield server
    # asyncio (3.11) leaks what it is accepting while a server closes; when this one is answered, all before it are in.
    last = http.client.HTTPConnection("127.0.0.1", int(server.url.split(":")[2].split("/")[0]), timeout=5)
    last.request("GET", "/v1/models")
    last.getresponse().read()
    last.close()
    loop.call_soon_threadsafe(stop.set)
    thread.join(5)
    loop.close()


class Slip:
    """A ticket, as a runtime would make it."""

    def __init__(self, bound: Cost) -> None:
        self.held: frozenset[bytes] = frozenset()
        self.bound, self.path, self.run, self.watched = bound, "test/0", None, True


class Client:
    """A backend and a stand-in for the runtime: submits, and collects what is posted."""

    def __init__(self, backend: OpenAI) -> None:
        self.backend, self.inbox = backend, queue.SimpleQueue[Any]()
        self.shown: list[str] = []
        backend.attach(lambda items: [self.inbox.put(item) for item in items] and None)

    def submit(self, request: Sample) -> Slip:
        slip = Slip(Cost())
        slip.bound = self.backend.bound(slip, request)
        self.backend.submit(slip, request)
        return slip

    def settled(self, slip: Slip | None = None) -> Settled:
        """Return the next settlement; pieces that come before it are kept in `shown`."""
        while True:
            item = self.inbox.get(timeout=5)
            if isinstance(item, Progress):
                self.shown.append(item.text)
            else:
                assert slip is None or item.ticket is slip
                return item

    def ask(self, request: Sample) -> Settled:
        return self.settled(self.submit(request))


@pytest.fixture
def client(server: Server) -> Iterator[Callable[..., Client]]:
    """Make a client of the server; knobs are those of `OpenAI`. Everything is closed at the end."""
    made: list[Client] = []

    def make(**knobs: Any) -> Client:
        knobs = {"base_url": server.url, "timeouts": Timeouts(connect=1.0, read=2.0)} | knobs
        made.append(Client(OpenAI(knobs.pop("model", "m"), **knobs)))
        return made[-1]

    yield make
    for each in made:
        each.backend.close()


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """Make a request: `sample("prompt", "written so far", max_tokens=8, ...)`."""

    def make(prompt: str = "Say something.", *written: str, **knobs: Any) -> Sample:
        prefix = Prefix(prompt)
        for piece in written:
            prefix = prefix.extend(piece)
        return Sample(**({"prefix": prefix, "model": "openai/m", "seed": 5, "max_tokens": 8} | knobs))

    return make
