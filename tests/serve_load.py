#!/usr/bin/env python3
"""Load on `minke serve`, with a verdict for each part: many streams against solo runs, idle
connections, a full queue, clients that leave, SIGTERM while streaming. Standard library only.

  tests/serve_load.py MINKE MODEL_DIR [--parts streams,idle,queue,leave,drain] [--seconds 300]
                      [--streams 256] [--disconnects 10000]
"""
import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import sys
import time

PROMPTS = ["Psalm 151", "秋夜 李白", "The ", "In the beginning", "子曰", "My love is", "O God", "春",
           "And it came to pass", "月", "the king of", "山", "What", "He said unto them", "天地", "1"]


class Server:
    """The program under load."""

    def __init__(self, minke, model, *flags):
        self.command = [minke, "serve", "--model", model, "--port", "0", *flags]

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        self.lines = []
        self.port = None
        self.reader = asyncio.create_task(self.read())
        while self.port is None:
            if self.process.returncode is not None:
                sys.exit("the server ended: " + "".join(self.lines))
            await asyncio.sleep(0.02)
        while True:
            try:
                if (await get(self.port, "/health"))[0] == 200:
                    return self
            except OSError:
                pass
            await asyncio.sleep(0.05)

    async def read(self):
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace"))
            found = re.search(r"http://[^\s/]*:(\d+)", self.lines[-1])
            if found and self.port is None:
                self.port = int(found.group(1))

    async def __aexit__(self, *unused):
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), 60)
        except asyncio.TimeoutError:
            self.process.kill()

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


async def open_request(port, method, path, body=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    writer.write(head.encode() + b"\r\n" + data)
    await writer.drain()
    return reader, writer


async def read_head(reader):
    status = int((await reader.readline()).split()[1])
    headers = {}
    while (line := (await reader.readline()).strip()):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


async def get(port, path):
    reader, writer = await open_request(port, "GET", path)
    try:
        status, headers = await read_head(reader)
        if "content-length" in headers:
            return status, headers, await reader.readexactly(int(headers["content-length"]))
        return status, headers, await reader.read()
    finally:
        writer.close()


def completion(prompt, tokens, **more):
    return {"model": "deepseek-chat", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, **more}


async def stream(port, prompt, tokens, on_event=None, **more):
    """(status, text, finish_reason, headers) of a streamed completion."""
    reader, writer = await open_request(port, "POST", "/v1/completions", completion(prompt, tokens, **more))
    try:
        status, headers = await read_head(reader)
        if status != 200:
            return status, "", None, headers
        text, reason = "", None
        async for line in reader:
            at = line.find(b"data: ")
            if at < 0:
                continue
            data = line[at + 6:].strip()
            if data == b"[DONE]":
                return status, text, reason, headers
            event = json.loads(data)
            if "error" in event:
                return 500, text, json.dumps(event), headers
            for choice in event["choices"]:
                text += choice["text"]
                reason = choice["finish_reason"] or reason
            if on_event:
                on_event()
        return 500, text, "the stream ended early", headers
    finally:
        writer.close()


async def metric(port, *words):
    body = (await get(port, "/metrics"))[2].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in body.splitlines()
               if not line.startswith("#") and all(word in line.split("{")[0].split(" ")[0] for word in words))


def verdict(name, good, what):
    print(f"{'ok  ' if good else 'FAIL'}  {name}: {what}", flush=True)
    return good


async def many_streams(args):
    flags = ["--max-batch", "64", "--max-waiting", "1024"]
    async with Server(args.minke, args.model, *flags) as server:
        solo = {}
        for prompt in PROMPTS:
            for tokens in (16, 60, 120):
                solo[prompt, tokens] = (await stream(server.port, prompt, tokens))[1:3]
        errors, wrong, done = [], 0, 0
        end = time.monotonic() + args.seconds

        async def client(seed):
            nonlocal wrong, done
            draw = random.Random(seed)
            while time.monotonic() < end:
                case = draw.choice(list(solo))
                try:
                    status, text, reason, _ = await stream(server.port, *case)
                except Exception as error:  # counted, whatever it is
                    errors.append(repr(error))
                    continue
                if status != 200:
                    errors.append(f"{status} {reason}")
                elif (text, reason) != solo[case]:
                    wrong += 1
                done += 1

        clients = [asyncio.create_task(client(i)) for i in range(args.streams)]
        memory = []
        while time.monotonic() < end:
            await asyncio.sleep(min(5, args.seconds / 10))
            memory.append(server.resident_mib())
        await asyncio.gather(*clients)
        settled = memory[len(memory) // 4:]
        growth = 100 * (max(settled) / min(settled) - 1)
        good = verdict("streams", not errors and wrong == 0 and done > args.streams,
                       f"{done} answers of {args.streams} streams in {args.seconds} s, {len(errors)} errors "
                       f"{errors[:2]}, {wrong} other than alone")
        return verdict("memory", growth <= 5, f"{memory[0]:.0f} MiB at first, {memory[-1]:.0f} at last; "
                       f"{growth:.1f} % between the least and the most after a quarter of the time") and good


async def idle_connections(args):
    async with Server(args.minke, args.model) as server:
        idle = []
        for _ in range(2000):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: te")
            idle.append(writer)
        busy = asyncio.create_task(stream(server.port, "Psalm", 200))
        times = []
        for _ in range(300):
            start = time.monotonic()
            status = (await get(server.port, "/health"))[0]
            times.append(1e3 * (time.monotonic() - start) if status == 200 else 1e9)
            await asyncio.sleep(0.005)
        await busy
        for writer in idle:
            writer.close()
        p99 = statistics.quantiles(times, n=100)[98]
        return verdict("idle", p99 <= 100, f"/health beside 2000 half-open connections: median "
                       f"{statistics.median(times):.1f} ms, p99 {p99:.1f} ms")


async def full_queue(args):
    async with Server(args.minke, args.model, "--max-batch", "2", "--max-waiting", "4") as server:
        with open(f"{args.model}/config.json", encoding="utf-8") as config:
            end = json.load(config)["eos_token_id"]  # forbidden, so that the queue stays full
        busy = [asyncio.create_task(stream(server.port, "The", 1500, logit_bias={str(end): -100}))
                for _ in range(12)]
        await asyncio.sleep(0.3)
        times, statuses, retry = [], set(), set()
        for _ in range(50):
            start = time.monotonic()
            status, _, _, headers = await stream(server.port, "The", 8)
            times.append(1e3 * (time.monotonic() - start))
            statuses.add(status)
            retry.add(headers.get("retry-after"))
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        slowest = max(times)
        return verdict("queue", statuses == {429} and None not in retry and slowest <= 20,
                       f"50 requests to a full queue: {statuses}, Retry-After {retry}, slowest {slowest:.1f} ms")


async def leaving_clients(args):
    async with Server(args.minke, args.model, "--max-waiting", "1024") as server:
        alone = (await stream(server.port, "Psalm 151", 200))[1]
        draw = random.Random(1)
        limit = asyncio.Semaphore(64)

        async def leave():
            async with limit:
                body = completion(draw.choice(PROMPTS), 300)
                body["stream"] = draw.random() < 0.5
                reader, writer = await open_request(server.port, "POST", "/v1/completions", body)
                await asyncio.sleep(draw.random() * 0.05)
                writer.transport.abort() if draw.random() < 0.5 else writer.close()

        async def witness():
            same = 0
            while not left.done():
                same += (await stream(server.port, "Psalm 151", 200))[1] != alone
            return same

        left = asyncio.gather(*(leave() for _ in range(args.disconnects)))
        others = await asyncio.gather(*(witness() for _ in range(2)), left)
        await asyncio.sleep(5)
        running = await metric(server.port, "running")
        pages = await metric(server.port, "pages", "used")
        return verdict("leave", running == 0 and pages == 0 and sum(others[:2]) == 0,
                       f"{args.disconnects} clients left: {running:.0f} running, {pages:.0f} pages in use, "
                       f"{sum(others[:2])} answers of others changed")


async def drain(args):
    async with Server(args.minke, args.model) as server:
        events = []
        streams = [asyncio.create_task(stream(server.port, p, 300, lambda: events.append(1))) for p in PROMPTS]
        while len(events) < len(PROMPTS):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        results = await asyncio.gather(*streams, return_exceptions=True)
        whole = sum(isinstance(r, tuple) and r[0] == 200 and r[2] in ("length", "stop") for r in results)
        status = await asyncio.wait_for(server.process.wait(), 30)
        return verdict("drain", whole == len(PROMPTS) and status == 0,
                       f"SIGTERM with {len(PROMPTS)} streams: {whole} were finished, exit status {status}")


PARTS = {"streams": many_streams, "idle": idle_connections, "queue": full_queue, "leave": leaving_clients,
         "drain": drain}


async def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("minke")
    flags.add_argument("model")
    flags.add_argument("--parts", default=",".join(PARTS))
    flags.add_argument("--seconds", type=float, default=300)
    flags.add_argument("--streams", type=int, default=256)
    flags.add_argument("--disconnects", type=int, default=10000)
    args = flags.parse_args()
    good = True
    for part in args.parts.split(","):
        good = await PARTS[part](args) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    asyncio.run(main())
