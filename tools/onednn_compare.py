#!/usr/bin/env python3
"""minke's BF16 products against oneDNN's, in turn.

usage: onednn_compare.py MINKE ONEDNN_GEMM [--rounds 5] [--json]

ONEDNN_GEMM is built from onednn_gemm.cpp; its first lines say how. Both use every core that the process may use
(taskset -c 0,1 for two). A round is one run of each program, whose medians count; who goes first alternates.
TFLOP/s of large products; GB/s of BF16 weights where one or eight rows meet weights that lie in memory. minke rounds
its FP32 activations within the measured time, oneDNN is given them in BF16; both write FP32. Without oneDNN: prints
"skipped: ..." and exits with 77.
"""
import argparse
import json
import math

from in_turn import measure, minke_results, output_of, program, report, threads

FROM_MEMORY = "linear from memory"


def speeds(results):
    """{name and shape: TFLOP/s or GB/s}; the bytes are the weights' own, whatever the packed form adds."""
    found = {}
    for r in results:
        if r["name"] in ("linear", FROM_MEMORY):
            extents = [int(n) for n in r["shape"].split(" x ")]
            work = 2e-9 * math.prod(extents[1:]) if r["name"] == FROM_MEMORY else 2e-12 * math.prod(extents)
            found[f"{r['name']} {r['shape']}"] = work / r["seconds"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("minke")
    parser.add_argument("onednn_gemm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    minke, rival = program(args.minke, "minke"), program(args.onednn_gemm, "the rival")
    version = "?"

    def run_rival():
        nonlocal version
        answer = json.loads(output_of([rival]))
        version = answer["version"]
        return speeds(answer["results"])

    def run_minke():
        return speeds(r for r in minke_results(minke, "gemm") if r["form"] == "bf16")
    lines = measure(args.rounds, run_minke, run_rival)
    report(lines, lambda what: "GB/s" if what.startswith(FROM_MEMORY) else "TFLOP/s", f"oneDNN {version}",
           {"threads": threads(), "rounds": args.rounds}, args.json)


if __name__ == "__main__":
    main()
