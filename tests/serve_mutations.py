#!/usr/bin/env python3
"""Mutated requests to `minke serve`: JSON broken at the level of bytes and of its structure, headers,
chunked bodies, cut connections. Each answer must be a success of the right shape or an error as OpenAI
writes them; at the end the server must answer /health, hold no page, and end with status 0.

  tests/serve_mutations.py MINKE MODEL_DIR [--count 100000] [--seed N] [--connections 8]

Meant for a build with sanitizers (preset dev) and a tiny model. The seed of a failure repeats its
requests (not their interleaving). Standard library only.
"""
import argparse
import collections
import copy
import http.client
import io
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ANSWER_WITHIN_S = 60  # sanitizers and eight clients at once

CHAT = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "the sea"}],
        "max_tokens": 4, "temperature": 0.7, "seed": 3}
TOOL = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {
    "type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
          "required": ["a"], "additionalProperties": False}
TEXT = {"model": "deepseek-chat", "prompt": "the ship", "max_tokens": 3}
REQUESTS = [
    ("/v1/chat/completions", CHAT),
    ("/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": ["a", "the"]}),
    ("/v1/chat/completions", {**CHAT, "tools": [TOOL], "tool_choice": "required"}),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"5": -100}, "presence_penalty": 0.5}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema", "json_schema": {
        "name": "s", "schema": SCHEMA}}}),
    ("/beta/chat/completions", {**CHAT, "messages": [{"role": "system", "content": "s"}, *CHAT["messages"],
                                                     {"role": "assistant", "content": "a", "prefix": True}]}),
    ("/v1/completions", {**TEXT, "logprobs": 2, "echo": True, "max_tokens": 1}),
    ("/completions", {**TEXT, "prompt": [[5, 6, 7], [8, 9]], "stream": True}),
    ("/v1/completions", {**TEXT, "prompt": ["a", "the", "sea"], "n": 2}),
    ("/tokenize", {"prompt": "the far shore", "add_special_tokens": False}),
    ("/tokenize", {"messages": CHAT["messages"], "tools": [TOOL]}),
    ("/detokenize", {"tokens": [5, 6, 7], "skip_special_tokens": False}),
]
VALUES = [None, True, False, 0, -1, 1, 1.5, -2**31, 2**31, 2**53, 2**63, -2**63 - 1, 10**30, 1e308, -0.0, "",
          "1", "hot", "\u0000", "\ud800", "<｜end▁of▁sentence｜>", "春" * 40, "a" * 3000, [], {}, [[]], [None],
          [0] * 300, ["x"] * 20, {"a": {"b": {}}}, [[1, 2], "a"], {"type": "function"}, "user", "auto"]
RAW_VALUES = ["1e400", "-1e999", "NaN", "Infinity", "-", "01", "\"\\ud800\"", "\"\\x\"", "[" * 100 + "]" * 100,
              "{\"a\":" * 70 + "1" + "}" * 70, "\"", "tru", "[1,]", "{,}", "/**/1", "'a'"]
BYTES = [b"", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"{", b"}", b"[", b"]", b"\"", b"\\", b"\\u", b",", b":",
         b"\r\n", b"e", b"-", b"9" * 30, b"\xe6\x98\xa5"]
HEADERS = ["Content-Length: 0", "Content-Length: 7", "Content-Length: -1", "Content-Length: 99999999999999999999",
           "Content-Length: 0x10", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Expect: 100-continue",
           "Expect: x", "Connection: close", "Connection: upgrade", "Upgrade: h2c", "X: " + "y" * 20000,
           "Authorization: Bearer", "Origin: null", "Host: a b", ": empty", "No colon", "A\x00B: c", " folded: x",
           "Content-Type: text/xml", "If-None-Match: *", "\x80: \xff"]
METHODS = ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "CONNECT", "TRACE", "", "P OST", "X" * 300]
TARGETS = ["/", "*", "", "/v1", "/v1/", "//", "/v1/models/%00", "/v1/models/" + "a" * 5000, "/../etc/passwd", "/%",
           "http://x", "/health?" + "q" * 2000, "/metrics#x", "/v1/models/\xff"]
VERSIONS = ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1.1", "http/1.1", "", "JUNK"]


class Bad(Exception):
    """An answer that must not be."""


# Mutations.

def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], path + (key,))


def mutate_structure(rng, document):
    """The body with some values replaced, removed, doubled or moved."""
    document = json.loads(json.dumps(document))
    marks = {}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice(list(places(document))[1:] or [None])
        if path is None:
            break
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        what = rng.randrange(6)
        if what == 0:
            del holder[path[-1]]
        elif what == 1:
            mark = f"mark{len(marks)}mark"
            marks[f'"{mark}"'] = rng.choice(RAW_VALUES)
            holder[path[-1]] = mark
        elif what == 2 and isinstance(holder, list):
            holder.extend([holder[path[-1]]] * rng.choice([1, 3, 60]))
        elif what == 3 and isinstance(holder, dict):
            key = rng.choice(["x", "n", "stream", "stop", "suffix", "tools", "messages", ""])
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif what == 4:
            holder[path[-1]] = [holder[path[-1]]]
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    for mark, raw in marks.items():
        text = text.replace(mark, raw)
    return text.encode("utf-8", "surrogatepass")


def mutate_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at] = rng.choice(BYTES)
        elif what == 2:
            del data[at:at + rng.choice([1, 1, 3, 30])]
        elif what == 3:
            end = at + rng.randrange(40)
            data[at:at] = data[at:end] * rng.choice([1, 2, 9])
        else:
            del data[at + rng.randrange(200):]
    return bytes(data)


def mutate_body(rng, document):
    if rng.random() < 0.7:
        return mutate_structure(rng, document)
    return mutate_bytes(rng, json.dumps(document, ensure_ascii=False).encode())


def chunked(rng, body, broken):
    out = b""
    while body:
        n = rng.randrange(1, len(body) + 1)
        size = f"{n:x}"
        if broken and rng.random() < 0.5:
            size = rng.choice(["", "-1", "0", "g", "ffffffffffffffff", "1" * 40, f"{n + 1:x}", f"{n - 1:x}"])
        out += size.encode() + rng.choice([b"", b"", b";a=b"]) + b"\r\n" + body[:n]
        out += rng.choice([b"", b"\n", b"\r\n\r\n"]) if broken and rng.random() < 0.2 else b"\r\n"
        body = body[n:]
    return out + rng.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"])


def framed(rng, path, body):
    """A request whose end both sides agree on: exactly one answer comes."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    if rng.random() < 0.15 and body:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked(rng, body, False)
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def unframed(rng, path, document):
    """A request whose head or chunks are broken: any number of answers comes."""
    body = json.dumps(document).encode()
    lines = [f"Content-Length: {len(body)}", "Host: x"]
    method, version = "POST", "HTTP/1.1"
    what = rng.randrange(6)
    if what == 0:
        lines.insert(rng.randrange(3), rng.choice(HEADERS))
    elif what == 1:
        lines[0] = rng.choice(HEADERS)
    elif what == 2:
        method = rng.choice(METHODS)
    elif what == 3:
        path = rng.choice(TARGETS)
    elif what == 4:
        version = rng.choice(VERSIONS)
    else:
        lines[0] = "Transfer-Encoding: chunked"
        body = chunked(rng, body, True)
    head = "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("latin-1", "replace")
    if rng.random() < 0.3:
        head = mutate_bytes(rng, head)
    return head + body


# Answers.

class Received(io.BytesIO):
    """All bytes of a connection: http.client reads one response after the other from them."""

    def makefile(self, *unused):
        return self

    def close(self):
        """http.client closes what it has read a response from; there may be more."""


def read_response(source):
    response = http.client.HTTPResponse(source)
    response.begin()  # skips 100 only
    while response.status == 102:
        response = http.client.HTTPResponse(source)
        response.begin()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def check_error(status, headers, body):
    error = json.loads(body)["error"]
    if set(error) != {"message", "type", "param", "code"} or not isinstance(error["message"], str):
        raise Bad(f"an error without its four fields: {body[:300]}")
    if status == 500:
        raise Bad(f"500: {body[:300]}")
    if status in (429, 503) and "retry-after" not in headers:
        raise Bad(f"{status} without Retry-After")
    if status not in (400, 401, 404, 405, 408, 413, 422, 429, 431, 503):
        raise Bad(f"an error with status {status}")


def check_stream(text):
    if not text.endswith("data: [DONE]\n\n"):
        raise Bad(f"a stream without its end: {text[-200:]!r}")
    for block in text.split("\n\n"):
        if block and not block.startswith(":") and block != "data: [DONE]":
            json.loads(block.removeprefix("data: "))


def check_answer(status, headers, body):
    kind = headers.get("content-type", "")
    if status >= 400:
        return check_error(status, headers, body)
    if status in (204, 304):
        return None
    if status != 200:
        raise Bad(f"status {status}")
    if kind.startswith("text/event-stream"):
        return check_stream(body.decode())
    if kind.startswith("application/json"):
        answer = json.loads(body)
        if not {"choices", "tokens", "prompt", "data", "status", "id"} & set(answer):
            raise Bad(f"a success without content: {body[:300]}")
        return None
    if not kind.startswith("text/"):
        raise Bad(f"an answer of type {kind!r}")
    return None


class Client:
    """Sends its share of the mutations, most of them over one connection that stays open."""

    def __init__(self, port, seed):
        self.port, self.rng, self.socket = port, random.Random(seed), None
        self.statuses, self.failures = collections.Counter(), []

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_WITHIN_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def run(self, count, stop):
        for _ in range(count):
            if stop.is_set():
                return
            path, document = self.rng.choice(REQUESTS)
            kind = self.rng.random()
            send = self.send_framed if kind < 0.7 else self.send_unframed if kind < 0.9 else self.send_cut
            request = b""
            try:
                if send == self.send_unframed:
                    request = unframed(self.rng, path, document)
                else:
                    request = framed(self.rng, path, mutate_body(self.rng, document))
                send(request)
            except Exception as error:  # noqa: whatever it is, it is reported with its request
                self.failures.append(f"{type(error).__name__}: {error}\n    after {request[:600]!r}")
                self.drop()
                if len(self.failures) > 20:
                    stop.set()

    def drop(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def send_framed(self, request):
        if not self.socket:
            self.socket = self.connect()
        self.socket.sendall(request)
        status, headers, body = read_response(self.socket)
        check_answer(status, headers, body)
        self.statuses[status] += 1
        if headers.get("connection") == "close":
            self.drop()

    def send_unframed(self, request):
        with self.connect() as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before it was whole; the answer is there all the same
            received = bytearray()
            try:
                while piece := connection.recv(65536):
                    received += piece
            except ConnectionResetError:
                pass
        answers = Received(received)
        while answers.tell() < len(received):
            status, headers, body = read_response(answers)
            check_answer(status, headers, body)
            self.statuses[status] += 1

    def send_cut(self, request):
        connection = self.connect()
        connection.sendall(request[:self.rng.randrange(len(request) + 1)])
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * 0.01)
        if self.rng.random() < 0.5:  # a reset instead of an end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.statuses["cut"] += 1


class Server:
    def __init__(self, minke, model):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [minke, "serve", "--model", model, "--port", "0", "--context", "256", "--max-tokens", "8",
             "--max-prompts", "8", "--max-n", "4", "--header-timeout", "5", "--body-timeout", "5"],
            stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the server did not start:\n{self.text()}")
        self.port = int(re.search(rb":(\d+)\s*$", line)[1])

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_WITHIN_S)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()

    def wait_until_ready(self):
        try:
            while self.get("/health")[0] != 200:
                time.sleep(0.05)
        except OSError:
            self.process.wait()
            sys.exit(f"the server ended while loading:\n{self.text()}")

    def busy(self):
        """What the metrics still show of requests and pages."""
        metrics = self.get("/metrics")[1]
        names = ("minke_requests_running", "minke_requests_waiting", "minke_cache_pages_used")
        found = {name: float(re.search(rf"^{name} (\S+)$", metrics, re.M)[1]) for name in names}
        return {name: value for name, value in found.items() if value != 0}

    def verdict(self):
        """What is wrong with it in the end."""
        wrong = []
        if self.process.poll() is not None:
            return [f"it ended with status {self.process.returncode}:\n{self.text()[-4000:]}"]
        for _ in range(100):
            if not self.busy():
                break
            time.sleep(0.1)
        else:
            wrong.append(f"left behind: {self.busy()}")
        if self.get("/health")[0] != 200:
            wrong.append("/health is not 200")
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=300)
        if status != 0:
            wrong.append(f"exit status {status}")
        if re.search(r"Sanitizer|runtime error", self.text()):
            wrong.append(f"a sanitizer found something:\n{self.text()[-6000:]}")
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minke")
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)

    server = Server(options.minke, options.model)
    server.wait_until_ready()
    clients = [Client(server.port, options.seed * 1000 + i) for i in range(options.connections)]
    stop = threading.Event()
    share = -(-options.count // len(clients))
    threads = [threading.Thread(target=c.run, args=(share, stop)) for c in clients]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    for client in clients:
        client.drop()

    counts = sum((c.statuses for c in clients), collections.Counter())
    failures = [f for c in clients for f in c.failures] + server.verdict()
    print(f"{share * len(clients)} mutations in {seconds:.0f} s, {share * len(clients) / seconds:.0f} a second")
    print(", ".join(f"{status}: {n}" for status, n in sorted(counts.items(), key=str)))
    for failure in failures[:20]:
        print(f"FAILED  {failure}")
    print("passed" if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
