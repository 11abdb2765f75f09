#!/usr/bin/env python3
"""minke serve as clients use it, on a tiny model.

  serve_test.py MINKE GOLDEN_DIR

Standard library only.
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
import use_test

CHAT = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "the sea"}],
        "temperature": 0, "max_tokens": 8}


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(tempfile.mkdtemp(prefix="minke_serve_"))
        cls.model, _ = use_test.make_model(cls.directory)
        config = json.loads((cls.model / "config.json").read_text())
        config["max_position_embeddings"] = 2048  # tools take some
        (cls.model / "config.json").write_text(json.dumps(config))
        cls.process = cls.start()
        cls.port = cls.wait_until_ready(cls.process)

    @classmethod
    def tearDownClass(cls):
        cls.process.send_signal(signal.SIGTERM)
        status = cls.process.wait(timeout=60)
        cls.process.stdout.close()
        shutil.rmtree(cls.directory)
        assert status == 0, status

    @classmethod
    def start(cls, *flags):
        return subprocess.Popen([use_test.MINKE, "serve", "--model", str(cls.model), "--port", "0",
                                 *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @staticmethod
    def wait_until_ready(process):
        port = int(re.search(rb":(\d+)$", process.stdout.readline().strip())[1])
        for _ in range(600):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/health")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return port
            assert status == 503
            time.sleep(0.1)
        raise AssertionError("not ready")

    def ask(self, path, body=None, method=None, raw=False):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("POST" if data is not None else "GET"), path, data)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, text.decode() if raw else json.loads(text)

    def events(self, path, body):
        status, text = self.ask(path, dict(body, stream=True), raw=True)
        self.assertEqual(status, 200, text)
        self.assertTrue(text.endswith("data: [DONE]\n\n"))
        blocks = text[: -len("data: [DONE]\n\n")].split("\n\n")[:-1]
        return [json.loads(b[len("data: "):]) for b in blocks if not b.startswith(":")]

    def test_chat_streams_the_same_text(self):
        status, whole = self.ask("/v1/chat/completions", CHAT)
        self.assertEqual(status, 200)
        chunks = self.events("/chat/completions", dict(CHAT, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(chunks[-1]["usage"], whole["usage"])
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        finish = [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]]
        self.assertEqual([f for f in finish if f], [whole["choices"][0]["finish_reason"]])

    def test_logprobs_spell_the_text(self):
        _, answer = self.ask("/v1/chat/completions", dict(CHAT, logprobs=True, top_logprobs=3))
        [choice] = answer["choices"]
        entries = choice["logprobs"]["content"]
        spelled = bytes(b for e in entries for b in e["bytes"])
        self.assertEqual(spelled.decode(errors="replace"), choice["message"]["content"])
        for e in entries:
            self.assertEqual(len(e["top_logprobs"]), 3)
            self.assertEqual(e["top_logprobs"][0]["logprob"], e["logprob"])
        self.assertEqual(answer["usage"]["completion_tokens"], len(entries))

    def test_scoring_agrees_with_generation(self):
        body = {"model": "model", "temperature": 0, "logprobs": 1, "seed": 1234}
        _, made = self.ask("/v1/completions", dict(body, prompt=[5, 6, 7], max_tokens=4))
        ids = [5, 6, 7] + [ord(t) for t in made["choices"][0]["text"]]
        prompts = [[8, 9], self.ask("/tokenize", {"prompt": "the sea"})[1]["tokens"], [5, 6, 7]]
        _, scored = self.ask("/v1/completions", dict(body, prompt=prompts, max_tokens=1, echo=True))
        self.assertEqual([c["index"] for c in scored["choices"]], [0, 1, 2])
        for prompt, choice in zip(prompts, scored["choices"]):
            for values in choice["logprobs"].values():
                self.assertEqual(len(values), len(prompt) + 1)
            self.assertIsNone(choice["logprobs"]["token_logprobs"][0])
        self.assertAlmostEqual(scored["choices"][2]["logprobs"]["token_logprobs"][-1],
                               made["choices"][0]["logprobs"]["token_logprobs"][0], delta=0.05)
        self.assertGreater(len(ids), 3)

    def test_json_is_an_object_at_any_temperature(self):
        for seed in range(3):
            _, answer = self.ask("/v1/chat/completions", dict(
                CHAT, temperature=2, seed=seed, max_tokens=60,
                response_format={"type": "json_object"}))
            choice = answer["choices"][0]
            self.assertTrue(choice["message"]["content"].lstrip().startswith("{"))
            if choice["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(choice["message"]["content"]), dict)

    def test_errors(self):
        for status, path, body in ((400, "/v1/chat/completions", b"{"),
                                   (400, "/v1/chat/completions", b"[" * 200000),
                                   (400, "/v1/chat/completions", dict(CHAT, temperature="hot")),
                                   (404, "/v1/chat/completions", dict(CHAT, model="x")),
                                   (404, "/v1/nothing", CHAT), (405, "/v1/models", CHAT),
                                   (413, "/v1/completions", b" " * (9 << 20)),
                                   (400, "/beta/completions",
                                    {"model": "model", "prompt": [1], "suffix": "b"})):
            found, answer = self.ask(path, body)
            self.assertEqual(found, status, answer)
            self.assertEqual(set(answer["error"]), {"message", "type", "param", "code"})
        _, answer = self.ask("/v1/completions", {"model": "model", "prompt": [1] * 5000})
        self.assertEqual(answer["error"]["code"], "context_length_exceeded")
        self.assertEqual(answer["error"]["param"], "prompt")

    def test_fill_in_the_middle_sees_prefix_hole_suffix(self):
        body = {"model": "model", "prompt": "the", "suffix": "sea", "max_tokens": 2}
        status, answer = self.ask("/beta/completions", body)
        self.assertEqual(status, 200, answer)
        parts = sum(self.ask("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["count"]
                    for text in ("the", "sea"))
        self.assertIn(answer["usage"]["prompt_tokens"], (parts + 3, parts + 4))

    def test_tokens_round_trip(self):
        _, tokens = self.ask("/tokenize", {"model": "model", "prompt": "the sea 春"})
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        _, text = self.ask("/detokenize", {"tokens": tokens["tokens"]})
        self.assertEqual(text["prompt"], "the sea 春")

    def test_tokens_of_messages_are_those_of_the_chat(self):
        tools = [{"type": "function", "function": {"name": "f"}}]
        for more in ({}, {"tools": tools}, {"tools": tools, "tool_choice": "none"}):
            body = dict(CHAT, max_tokens=1, **more)
            _, answer = self.ask("/v1/chat/completions", body)
            _, tokens = self.ask("/tokenize", body)
            self.assertEqual(tokens["count"], answer["usage"]["prompt_tokens"])

    def test_required_calls_parse_whole_and_streamed(self):
        tools = [{"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"],
            "additionalProperties": False}}} for name in ("f", "g")]
        for seed in range(3):
            body = dict(CHAT, temperature=2, seed=seed, max_tokens=100, tools=tools, stop=["}"],
                        tool_choice={"type": "function", "function": {"name": "g"}})
            status, answer = self.ask("/v1/chat/completions", body)
            self.assertEqual(status, 200, answer)
            [choice] = answer["choices"]
            [call] = choice["message"]["tool_calls"]
            self.assertEqual(call["function"]["name"], "g")
            if choice["finish_reason"] == "tool_calls":
                self.assertIn(json.loads(call["function"]["arguments"])["n"], (1, 2))
            else:
                self.assertEqual(choice["finish_reason"], "length")
            deltas = [c["choices"][0]["delta"] for c in self.events("/v1/chat/completions", body)]
            pieces = [piece for d in deltas for piece in d.get("tool_calls", [])]
            self.assertEqual([piece["function"].get("name") for piece in pieces],
                             ["g"] + [None] * (len(pieces) - 1))
            self.assertEqual(["id" in piece for piece in pieces],
                             [True] + [False] * (len(pieces) - 1))
            self.assertEqual("".join(piece["function"]["arguments"] for piece in pieces),
                             call["function"]["arguments"])

    def test_idle_connections_do_not_slow_health(self):
        idle = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(300)]
        for connection in idle:
            connection.send(b"GET /hea")
        slowest = 0
        for _ in range(50):
            begin = time.monotonic()
            self.assertEqual(self.ask("/health")[0], 200)
            slowest = max(slowest, time.monotonic() - begin)
        for connection in idle:
            connection.close()
        self.assertLess(slowest, 1)

    def test_the_gauge_falls_when_clients_leave(self):
        for stream in (False, True):
            body = json.dumps(dict(CHAT, max_tokens=200, stream=stream)).encode()
            client = socket.create_connection(("127.0.0.1", self.port))
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
                        % len(body) + body)
            client.close()
        end = time.monotonic() + 5
        while "minke_requests_running 0\n" not in self.ask("/metrics", raw=True)[1]:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def test_the_page_has_a_policy_and_is_not_sent_twice(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/")
        response = connection.getresponse()
        self.assertIn(b"<html", response.read())
        self.assertIn("default-src 'none'", response.getheader("Content-Security-Policy"))
        connection.request("GET", "/", headers={"If-None-Match": response.getheader("ETag")})
        self.assertEqual(connection.getresponse().status, 304)
        connection.close()


if __name__ == "__main__":
    use_test.MINKE, use_test.GOLDEN = os.path.abspath(sys.argv[1]), Path(sys.argv[2])
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
