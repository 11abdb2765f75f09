#!/usr/bin/env python3
"""Drafts by the MTP module, through `minke serve`: the text of 10,000 greedy tokens and of as many seeded
ones is the same with and without them; prints the acceptance and what they gain.

  serve_draft_check.py MINKE MODEL_DIR [--prompts TEXT...] [--tokens 3400] [--least-gain 0]

A model for which they pay: see recipes/regular_text.sh.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request


class Server:
    def __init__(self, minke, model, draft):
        self.process = subprocess.Popen(
            [minke, "serve", "--model", model, "--port", "0", "--draft", draft, "--max-batch", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.process.stdout.readline().strip()
        while True:
            try:
                urllib.request.urlopen(self.url + "/health").close()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("the server did not start")
                time.sleep(0.1)

    def complete(self, prompt, tokens, temperature):
        body = {"model": "deepseek-chat", "prompt": prompt, "max_tokens": tokens, "temperature": temperature,
                "seed": 7, "logit_bias": {}}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        start = time.monotonic()
        answer = json.load(urllib.request.urlopen(request))
        return answer["choices"][0]["text"], answer["usage"]["completion_tokens"], time.monotonic() - start

    def metric(self, name):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("minke")
    flags.add_argument("model")
    flags.add_argument("--prompts", nargs="+", default=["1. ", "2. the ", "1. old "])
    flags.add_argument("--tokens", type=int, default=3400)
    flags.add_argument("--least-gain", type=float, default=0)
    args = flags.parse_args()
    plain, drafted = Server(args.minke, args.model, "off"), Server(args.minke, args.model, "always")
    good, gains = True, []
    for temperature in (0, 1):
        tokens = 0
        for prompt in args.prompts:
            a, n, a_s = plain.complete(prompt, args.tokens, temperature)
            b, _, b_s = drafted.complete(prompt, args.tokens, temperature)
            tokens += n
            good &= a == b
            gains.append(a_s / b_s)
            print(f"temperature {temperature}, {prompt[:24]!r}: {n} tokens, {'the same' if a == b else 'OTHER'} text; "
                  f"{n / a_s:.0f} tokens/s without, {n / b_s:.0f} with drafts", flush=True)
        print(f"temperature {temperature}: {tokens} tokens")
    drafts, accepted = drafted.metric("minke_draft_tokens_total"), drafted.metric("minke_draft_accepted_tokens_total")
    print(f"{100 * accepted / drafts:.1f} % of {drafts:.0f} drafts accepted; gain: median {statistics.median(gains):.2f}, "
          f"from {min(gains):.2f} to {max(gains):.2f}")
    plain.stop()
    drafted.stop()
    # What the server itself finds, by the times of steps: (1 + a) t1 / (t2 + td).
    judging = Server(args.minke, args.model, "auto")
    for prompt in args.prompts[:4]:
        judging.complete(prompt, args.tokens, 0)
    expected = judging.metric("minke_draft_gain")
    judging.stop()
    print(f"by the times of steps a gain of {expected:.2f}: {100 * statistics.median(gains) / expected:.0f} % of it was "
          "measured")
    sys.exit(0 if good and statistics.median(gains) >= args.least_gain else 1)


if __name__ == "__main__":
    main()
