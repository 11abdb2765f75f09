#!/usr/bin/env python3
"""Speed of OpenAI-compatible servers on the same model, measured in turn: tokens/s of several streams, and
the time to the first token of a long prompt, fresh and again. Standard library only.

  serve_speed.py NAME=URL [NAME=URL ...] [--streams 1,8,32] [--tokens 128] [--prompt 4096] [--vocab 8192]
                 [--eos 1] [--rounds 3]

The first server is the one that the others are compared with. Prompts are random token ids, none twice, so
that no server has seen them; the end of sentence (--eos) is forbidden by logit_bias.
"""
import argparse
import asyncio
import json
import random
import statistics
import time
import urllib.parse


async def complete(url, prompt, tokens, eos):
    """(seconds to the first token, seconds in all, tokens) of one streamed completion."""
    address = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps({"model": "deepseek-chat", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                       "stream_options": {"include_usage": True}, "logit_bias": {str(eos): -100}}).encode()
    start = time.monotonic()
    writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    first, made, status = None, 0, (await reader.readline()).decode()
    if " 200 " not in status:
        raise SystemExit(f"{url}: {status.strip()} {(await reader.read()).decode(errors='replace')[-300:]}")
    async for line in reader:
        at = line.find(b"data: {")
        if at < 0:
            continue
        event = json.loads(line[at + 6:])
        if first is None and event.get("choices"):
            first = time.monotonic() - start
        made = (event.get("usage") or {}).get("completion_tokens", made)
    writer.close()
    if made != tokens:
        raise SystemExit(f"{url}: {made} tokens instead of {tokens}")
    return first, time.monotonic() - start, made


async def throughput(url, streams, args, draw):
    prompts = [[draw.randrange(2, args.vocab) for _ in range(32)] for _ in range(streams)]
    start = time.monotonic()
    answers = await asyncio.gather(*(complete(url, p, args.tokens, args.eos) for p in prompts))
    return sum(a[2] for a in answers) / (time.monotonic() - start)


async def first_token(url, args, draw):
    prompt = [draw.randrange(2, args.vocab) for _ in range(args.prompt)]
    fresh = (await complete(url, prompt, 2, args.eos))[0]
    return fresh, (await complete(url, prompt, 2, args.eos))[0]


def show(what, names, values, unit, higher_is_better):
    """Medians, and the first server against each other one: ratios round by round."""
    line = f"{what:34s}" + "".join(f"  {n} {statistics.median(values[n]):8.1f} {unit}" for n in names)
    for n in names[1:]:
        ratios = [a / b if higher_is_better else b / a for a, b in zip(values[names[0]], values[n])]
        line += f"  {statistics.median(ratios):.2f}x {n} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(line, flush=True)


async def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("servers", nargs="+", metavar="NAME=URL")
    flags.add_argument("--streams", default="1,8,32")
    flags.add_argument("--tokens", type=int, default=128)
    flags.add_argument("--prompt", type=int, default=4096)
    flags.add_argument("--vocab", type=int, default=8192)
    flags.add_argument("--eos", type=int, default=1)
    flags.add_argument("--rounds", type=int, default=3)
    args = flags.parse_args()
    servers = dict(s.split("=", 1) for s in args.servers)
    names, draw = list(servers), random.Random(1)
    for n in names:
        await throughput(servers[n], 1, args, draw)
    for streams in map(int, args.streams.split(",")):
        values = {n: [] for n in names}
        for _ in range(args.rounds):
            for n in names:
                values[n].append(await throughput(servers[n], streams, args, draw))
        show(f"{streams} streams of {args.tokens} tokens", names, values, "tokens/s", True)
    fresh, again = {n: [] for n in names}, {n: [] for n in names}
    for _ in range(args.rounds):
        for n in names:
            a, b = await first_token(servers[n], args, draw)
            fresh[n].append(1000 * a)
            again[n].append(1000 * b)
    show(f"first token, {args.prompt} tokens", names, fresh, "ms", False)
    show("first token, the same prompt again", names, again, "ms", False)


asyncio.run(main())
