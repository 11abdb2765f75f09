"""A server that speaks the chat API as far as the web chat needs it. The last user message says how
it answers: see ANSWERS and Handler.answer."""
import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "secret-of-the-test"


def policy(page):
    """As strict as `minke serve` is: only the page's own inline script and style, by hash."""
    def inline(name):
        source = page.split(f"<{name}>", 1)[1].split(f"</{name}>", 1)[0]
        return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"
    return (f"default-src 'none'; script-src {inline('script')}; style-src {inline('style')}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")


MARKDOWN = """## Tides

The **Moon** pulls, *the Sun* helps; see `F = G m M / r^2` and [more](https://example.org/tides).

1. Spring tides
   - at new moon
   - at full moon
2. Neap tides

| body | share |
| --- | ---: |
| Moon | 68 % |
| Sun | 32 % |

```python
def height(t):
    return "<b>" if t else 0
```

> Time and tide wait for none.

<img src=x onerror="window.broken=1"><script>window.broken=1</script>
[bad](javascript:window.broken=1) a_b_c **open
"""
ANSWERS = {
    "markdown": MARKDOWN,
    "think": "Therefore 4.",
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, text, kind, **headers):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, message, **headers):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        self.reply(status, json.dumps({"error": error}), "application/json", **headers)

    def allowed(self):
        if not self.server.wants_key or self.headers.get("Authorization") == f"Bearer {KEY}":
            return True
        self.fail(401, "wrong key")
        return False

    def do_GET(self):
        if self.path == "/":
            self.reply(200, self.server.page, "text/html; charset=utf-8",
                       Content_Security_Policy=policy(self.server.page))
        elif not self.allowed():
            pass
        elif self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in ("minke-test", "deepseek-chat")]
            self.reply(200, json.dumps({"object": "list", "data": models}), "application/json")
        elif self.path == "/metrics":
            n = self.server.answered
            self.reply(200, f"# TYPE minke_draft_tokens_total counter\nminke_draft_tokens_total {20 * n}\n"
                            "# TYPE minke_draft_accepted_tokens_total counter\n"
                            f"minke_draft_accepted_tokens_total {17 * n}\n", "text/plain; version=0.0.4")
        else:
            self.fail(404, "no such path")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/chat/completions":
            return self.fail(404, "no such path")
        if not self.allowed():
            return None
        request = json.loads(body)
        self.server.requests.append(request)
        asked = request["messages"][-1]["content"]
        if asked == "busy" and self.server.once("busy"):
            return self.fail(429, "queue full", Retry_After="7")
        if asked == "long":
            return self.fail(400, "the prompt has 99 tokens but the context 64")
        try:
            self.answer(asked, request)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left += 1
            self.close_connection = True
        return None

    def answer(self, asked, request):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        text = ANSWERS.get(asked, f"echo {len(self.server.requests)}: {asked}")
        self.event({"delta": {"role": "assistant", "content": ""}})
        if asked == "think":
            for piece in ("Two and ", "two: **add**."):
                self.event({"delta": {"reasoning_content": piece}})
        if asked == "slow":
            for n in range(600):
                self.event({"delta": {"content": f"word{n} "}})
                time.sleep(0.05)
        pieces = [text[i:i + 7] for i in range(0, len(text), 7)]
        for n, piece in enumerate(pieces):
            if asked == "broken" and n == 1:
                return
            self.event({"delta": {"content": piece}})
            time.sleep(self.server.pause_s)
        self.event({"delta": {}, "finish_reason": "stop"})
        self.server.answered += 1
        self.wfile.write(b": keep-alive\n\n")
        self.send_data({"choices": [], "usage": {"completion_tokens": len(pieces)}})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, choice):
        self.send_data({"choices": [{"index": 0, "finish_reason": None, **choice}], "usage": None})

    def send_data(self, data):
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()


class FakeServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, page):
        super().__init__(("127.0.0.1", 0), Handler)
        self.page = page
        self.wants_key = False
        self.requests = []  # bodies of chat requests
        self.answered = 0
        self.left = 0       # answers that the client did not wait for
        self.pause_s = 0.005
        self.done = set()
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def once(self, name):
        if name in self.done:
            return False
        self.done.add(name)
        return True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"
