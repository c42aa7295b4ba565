"""Servers that are down, refuse, fail or break off: one paragraph, exit code 1, and nothing hangs."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from outthink.cli.main import main

pytestmark = pytest.mark.loopback


class Handler(BaseHTTPRequestHandler):
    """Answers every request as `server.behave` says: a status, "cut", or "well"."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": "m", "max_model_len": 4000}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        behave = self.server.behave
        if isinstance(behave, int):
            self.reply(behave, {"error": {"message": f"because of {behave}", "type": "t", "code": None}})
        elif behave == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.write(b'data: {"id": "1", "object": "x", "choices": [{"index": 0, "te')
            self.wfile.flush()
            self.close_connection = True
        else:
            if behave == "slow":
                time.sleep(1)
            self.answer(body)

    def answer(self, body):
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        text = " so # 42\n"
        chat = "messages" in body
        if not body.get("stream"):
            choice = {
                "index": 0,
                "finish_reason": "stop",
                **({"message": {"role": "assistant", "content": text}} if chat else {"text": text}),
            }
            self.reply(200, {"id": "1", "object": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage})
            return
        piece = {"delta": {"content": text}} if chat else {"text": text}
        end = {"delta": {}} if chat else {"text": ""}
        head = {"id": "1", "object": "x", "created": 1, "model": "m"}
        chunks = [{**head, "choices": [{"index": 0, "finish_reason": None, **piece}]},
                  {**head, "choices": [{"index": 0, "finish_reason": "stop", **end}]},
                  {**head, "choices": [], "usage": usage}]  # fmt: skip
        data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self.raw(200, data.encode(), "text/event-stream")

    def reply(self, status, document):
        self.raw(status, json.dumps(document).encode(), "application/json")

    def raw(self, status, data, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.behave, found.asked = "well", []
        found.url = f"http://127.0.0.1:{found.server_port}/v1"
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["outthink", *arguments])
        with pytest.raises(SystemExit) as leave:
            main(arguments)
        out, err = capsys.readouterr()
        return leave.value.code, out, err

    return call


def solve(server, *more):
    return [
        "solve",
        "What is six times seven?",
        "--model",
        "openai/m",
        "--base-url",
        server.url,
        "--method",
        "greedy",
        *more,
    ]


@pytest.mark.parametrize("behave", ["well", "slow"])
def test_a_good_server_answers_and_its_usage_is_the_cost(server, run, behave):
    server.behave = behave
    code, out, err = run(*solve(server, "--json"))
    document = json.loads(out)
    assert (code, err, document["answer"]) == (0, "", "42")
    assert document["cost"]["total"]["output_tokens"] == 3
    assert document["exact"]


@pytest.mark.parametrize(("behave", "says"), [(401, "401"), (404, "404"), (429, "429"), (500, "500"), ("cut", "")])
@pytest.mark.parametrize("method", ["greedy", "majority"])
def test_a_bad_server_is_one_paragraph_and_exit_code_1(server, run, behave, says, method):
    server.behave = behave
    arguments = solve(server, "--json")
    arguments[arguments.index("greedy")] = method
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err
    if behave in (401, 404):
        assert len(server.asked) <= 8, "it makes no sense to ask again"


def test_a_server_that_is_down_is_named(server, run):
    arguments = solve(server)
    arguments[arguments.index(server.url)] = "http://127.0.0.1:9/v1"
    code, out, err = run(*arguments)
    assert (code, out) == (1, "") and "127.0.0.1:9" in err and err.count("\n") == 1


def test_a_comparison_keeps_what_is_done_when_the_server_goes_and_resumes_when_it_is_back(server, run, tmp_path):
    task = tmp_path / "t.jsonl"
    task.write_text("".join(json.dumps({"id": i, "prompt": f"question {i}?", "answer": 42}) + "\n" for i in range(6)))
    out = tmp_path / "out"
    arguments = ["compare", str(task), "--model", "openai/m", "--base-url", server.url, "--methods", "greedy",
                 "--budgets", "1k", "-o", str(out), "--json"]  # fmt: skip
    code, _, err = run(*arguments, "--limit", "2")
    assert (code, err) == (0, "")
    lines = (out / "results.jsonl").read_text()
    server.behave = 500
    code, stdout, err = run(*arguments[:-1], "--limit", "2", "--resume", "--methods", "greedy,majority", "--json")
    assert code == 1 and "2 cells failed" in err and "--resume tries them again" in err
    assert (out / "results.jsonl").read_text() == lines
    assert [row["method"] for row in json.loads(stdout)["rows"]] == ["greedy"]
    server.behave = "well"
    code, stdout, err = run(*arguments, "--limit", "2", "--resume", "--methods", "greedy,majority")
    assert (code, err) == (0, "")
    assert [(row["method"], row["accuracy"]) for row in json.loads(stdout)["rows"]] == [
        ("greedy", 1.0),
        ("majority", 1.0),
    ]
