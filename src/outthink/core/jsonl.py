"""Traces as lines of JSON: a header, then events; every prefix is written once and named after that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

from .cost import Cost
from .errors import InvalidInput
from .refs import Prefix, Ref
from .request import Draft, Request, Scored
from .trace import SCHEMA, Decision, Event, Served, Trace
from .verdict import Verdict

_REPLIES: Mapping[str, type[Any]] = {kind.__name__: kind for kind in (Draft, Scored, Verdict, Ref)}


def digest(request: Request[Any] | None) -> str:
    """Return the short name of what a request asks, equal for equal requests in every process; "" for None."""
    if request is None:
        return ""
    if isinstance(request, Recorded):
        return request.digest
    body = ";".join(f"{f.name}={_stable(getattr(request, f.name))}" for f in fields(request))  # type: ignore[arg-type]
    return blake2b(f"{type(request).__name__}({body})".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _stable(value: Any) -> str:
    return value.digest.hex() if isinstance(value, Prefix) else repr(value)


class Recorded(Request[Any]):
    """A request as it was written down: its kind, its fields as JSON, and the digest of the original."""

    __slots__ = ("digest", "facts", "kind", "model")

    def __init__(self, kind: str, facts: Mapping[str, Any], name: str) -> None:
        self.kind, self.facts, self.digest = kind, facts, name
        self.model: str = str(facts.get("model", ""))

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v!r}' for k, v in self.facts.items())})"


class JsonlSink:
    """Writes events as they come; a sink for `Runtime.start`. Flushes with every event, so a killed run keeps its past.

    Values that JSON does not know (states in notes, the memory of a Monitor) are written as their `repr`.
    """

    def __init__(self, file: TextIO, header: Mapping[str, Any], *, level: str = "full") -> None:
        self._file, self._known = file, dict[bytes, int]()
        self._write({"outthink_trace": SCHEMA, "level": level, "header": dict(header)})

    def __call__(self, event: Event) -> None:
        if isinstance(event, Decision):
            facts = self._json(event.facts)
            self._write({"tick": event.tick, "path": event.path, "decision": event.kind, "facts": facts})
            return
        row: dict[str, Any] = {
            "tick": event.tick, "path": event.path, "attempt": event.attempt, "status": event.status,
            "cost": event.cost.nonzero(), "bound": event.bound.nonzero(),
        }  # fmt: skip
        if event.request is not None:
            row |= {"asks": digest(event.request), "request": self._request(event.request)}
        if event.reply is not None:
            row["reply"] = self._json(event.reply)
        if not event.exact:
            row["exact"] = False
        if event.message:
            row |= {"message": event.message, "retry": event.retry}
        self._write(row)

    def _request(self, request: Request[Any]) -> dict[str, Any]:
        if isinstance(request, Recorded):
            return {"kind": request.kind, **{name: self._json(value) for name, value in request.facts.items()}}
        given = {f.name: getattr(request, f.name) for f in fields(request)}  # type: ignore[arg-type]
        return {"kind": type(request).__name__, **{name: self._json(value) for name, value in given.items()}}

    def _json(self, value: Any) -> Any:
        if isinstance(value, Prefix):
            return {"prefix": self._prefix(value)}
        if isinstance(value, Cost):
            return {"cost": value.nonzero()}
        if is_dataclass(value) and type(value).__name__ in _REPLIES:
            return {type(value).__name__: {f.name: self._json(getattr(value, f.name)) for f in fields(value)}}
        if isinstance(value, tuple):
            return {"tuple": [self._json(item) for item in value]}
        if isinstance(value, list):
            return [self._json(item) for item in value]
        if isinstance(value, Mapping):
            return {"map": [[self._json(key), self._json(item)] for key, item in value.items()]}
        if value is None or isinstance(value, str | int | float | bool):
            return value
        return {"repr": repr(value)}

    def _prefix(self, prefix: Prefix) -> int:
        for node in prefix.chain():
            if node.digest not in self._known:
                parent = self._known[node.parent.digest] if node.parent is not None else None
                name = self._known[node.digest] = len(self._known)
                tokens = list(node.tokens) if node.tokens is not None else None
                self._write({"piece": name, "parent": parent, "text": node.piece, "ids": tokens, "of": node.vocabulary})
        return self._known[prefix.digest]

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()


def write(trace: Trace, path: str | Path) -> None:
    """Write a trace to a file."""
    with open(path, "w", encoding="utf-8") as file:
        sink = JsonlSink(file, trace.header, level=trace.level)
        for event in trace.events:
            sink(event)


def read(path: str | Path) -> Trace:
    """Return the trace in a file. A last line that was cut off (a killed run) is left out.

    Raises InvalidInput, with the file and the line, for what is not a trace of this schema.
    """
    with open(path, encoding="utf-8") as file:
        return parse(file, str(path))


def parse(lines: Iterator[str] | TextIO, name: str = "trace") -> Trace:
    """Return the trace in some lines of JSON; `name` is for errors."""
    trace: Trace | None = None
    prefixes: list[Prefix] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if trace is not None and not line.endswith("\n"):
                break
            what = f"{name}, line {number}: not JSON ({error.msg}); a trace has one JSON object a line"
            raise InvalidInput(what) from None
        if trace is None:
            if not isinstance(row, dict) or row.get("outthink_trace") != SCHEMA:
                raise InvalidInput(f"{name}, line {number}: not a trace of schema {SCHEMA}")
            trace = Trace(row["header"], level=row["level"])
            continue
        try:
            if "piece" in row:
                ids = tuple(row["ids"]) if row["ids"] is not None else None
                parent = prefixes[row["parent"]] if row["parent"] is not None else None
                prefixes.append(Prefix(row["text"], parent=parent, tokens=ids, vocabulary=row["of"]))
            else:
                trace.events.append(_event(row, prefixes))
        except (KeyError, IndexError, TypeError) as error:
            raise InvalidInput(f"{name}, line {number}: not an event of a trace ({error!r})") from None
    if trace is None:
        raise InvalidInput(f"{name} is empty; a trace begins with a header")
    return trace


def _event(row: Mapping[str, Any], prefixes: list[Prefix]) -> Event:
    def value(node: Any) -> Any:
        if isinstance(node, list):
            return [value(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((kind, body),) = node.items()
        if kind in _REPLIES:
            return _REPLIES[kind](**{name: value(item) for name, item in body.items()})
        return readers[kind](body)

    readers: Mapping[str, Callable[[Any], Any]] = {
        "prefix": lambda body: prefixes[body], "cost": Cost, "tuple": lambda body: tuple(value(item) for item in body),
        "map": lambda body: {value(key): value(item) for key, item in body}, "repr": str,
    }  # fmt: skip
    if "decision" in row:
        return Decision(row["tick"], row["path"], row["decision"], value(row["facts"]))
    request = None
    if "request" in row:
        given = dict(row["request"])
        request = Recorded(given.pop("kind"), {name: value(item) for name, item in given.items()}, row["asks"])
    return Served(
        row["tick"], row["path"], row["attempt"], request, value(row.get("reply")),
        Cost(row["cost"]), Cost(row["bound"]), row["status"], row.get("exact", True),
        row.get("message", ""), row.get("retry", False),
    )  # fmt: skip
