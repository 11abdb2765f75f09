#!/usr/bin/env python3
"""minke against llama-bench of llama.cpp or ik_llama.cpp, in turn: decoding and prompts of a benchmark model.

usage: llama_compare.py MINKE LLAMA_BENCH MODEL.gguf [--model moonlight-9l] [--rounds 5] [--json]
                        [--flags "-fa 1 -rtr 1"] [--minke-flags "--weights int4"] [--only "decode after 0"]

MODEL.gguf is the same model with random weights, from llama_model.py. Both use every core that the process may
use (taskset -c 0,1 for two). A round loads the model anew in both programs and takes the median of three
measurements of each; who goes first alternates. Tokens/s: medians over the rounds, and the median of the rounds'
ratios, with least and greatest. Without the rival or its model: prints "skipped: ..." and exits with 77.
"""
import argparse
import json
import pathlib
import shlex
import statistics

from in_turn import measure, minke_results, output_of, program, report, skip, threads

# what, of minke, of llama-bench: prompt, generated, before
CASES = [("decode after 0", ["decode", "--context", "0", "--steps", "32"], (0, 32, 0)),
         ("decode after 4096", ["decode", "--context", "4096", "--steps", "32"], (0, 32, 4096)),
         ("prefill 512", ["prefill", "--tokens", "512"], (512, 0, 0)),
         ("prefill 4096", ["prefill", "--tokens", "4096"], (4096, 0, 0))]


def rival_arguments(usage, prompt, generated, before):
    if not before:
        return ["-p", str(prompt), "-n", str(generated)]
    if "--n-depth" in usage:
        return ["-p", str(prompt), "-n", str(generated), "-d", str(before)]
    return ["-p", "0", "-n", "0", "-gp", f"{before},{generated}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("minke")
    parser.add_argument("llama_bench")
    parser.add_argument("gguf")
    parser.add_argument("--model", choices=["mini", "moonlight-9l", "v3-slice"], default="moonlight-9l")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each round")
    parser.add_argument("--flags", default="", help="of llama-bench")
    parser.add_argument("--minke-flags", default="", help="of minke bench")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    minke, rival = program(args.minke, "minke"), program(args.llama_bench, "the rival")
    if not pathlib.Path(args.gguf).is_file():
        skip(f"{args.gguf} is not there; llama_model.py makes it")
    usage = output_of([rival, "--help"])
    repetitions = str(args.repetitions)
    lines = {}
    for what, ours, theirs in CASES:
        if not what.startswith(args.only):
            continue
        def run_minke():
            results = minke_results(minke, *ours, "--model", args.model, "--rounds", repetitions,
                                    *shlex.split(args.minke_flags))
            return {what: results[0]["tokens_per_s"]}
        def run_rival():
            results = json.loads(output_of([rival, "-m", args.gguf, "-t", str(threads()), "-r", repetitions, "-o",
                                            "json", *rival_arguments(usage, *theirs), *shlex.split(args.flags)]))
            return {what: statistics.median(results[-1]["samples_ts"])}
        measure(args.rounds, run_minke, run_rival, lines)
    report(lines, lambda what: "tokens/s", "rival",
           {"model": args.model, "threads": threads(), "rounds": args.rounds, "minke flags": args.minke_flags or "none",
            "rival flags": args.flags or "none", "rival file": pathlib.Path(args.gguf).name}, args.json)


if __name__ == "__main__":
    main()
