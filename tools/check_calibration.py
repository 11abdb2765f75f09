#!/usr/bin/env python3
"""Holds predictions of `minke plan` against this machine: calibrates from benchmarks of single
operations, then predicts and measures a training step of mini, and decode and prefill of
moonlight-9l. Bandwidth drifts on shared machines, so every round calibrates anew.

  tools/check_calibration.py [--minke build/release/minke] [--rounds 3] [--weights fp8] [--prompt 512]
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return done.stdout.decode()


def compare(minke, folder, weights, prompt):
    """{what: (predicted, measured)} in seconds."""
    model = "moonlight-9l"
    files = []
    for name, flags in {"gemm": [], "attention": [], "bandwidth": [],
                        "moe": ["--model", model, "--weights", weights]}.items():
        files.append(os.path.join(folder, name + ".json"))
        with open(files[-1], "w") as out:
            out.write(run(minke, "bench", name, "--json", *flags))
    machine = os.path.join(folder, "machine.json")
    run(minke, "plan", "calibrate", "--bench", *files, "--out", machine)

    def measured(*flags):
        return json.loads(run(minke, "bench", *flags, "--json"))["results"][0]["seconds"]

    step = json.loads(run(minke, "plan", "time", "--cluster", machine, "--model", "mini",
                          "--sequence", "512", "--micro-batch", "8", "--micro-batches", "1",
                          "--recompute", "none", "--no-fp8", "--json"))["step_s"]
    use = json.loads(run(minke, "plan", "generate", "--cluster", machine, "--model", model,
                         "--weights", weights, "--prompt", str(prompt), "--json"))
    of_model = ["--model", model, "--weights", weights]
    return {
        "decode " + model: (1 / use["decode_tokens_per_s"], measured("decode", *of_model)),
        f"prefill {model} {prompt}":
            (use["prefill_s"], measured("prefill", *of_model, "--tokens", str(prompt))),
        "train mini": (step, measured("train", "--model", "mini")),
    }


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--minke", default="build/release/minke")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--weights", default="fp8", choices=["fp8", "bf16"])
    flags.add_argument("--prompt", type=int, default=512)
    args = flags.parse_args()
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.rounds):
            for what, (predicted, real) in compare(args.minke, folder, args.weights,
                                                   args.prompt).items():
                ratios.setdefault(what, []).append(predicted / real)
                print(f"round {i + 1}  {what:<28} predicted {1e3 * predicted:9.2f} ms  "
                      f"measured {1e3 * real:9.2f} ms  {100 * (predicted / real - 1):+6.1f} %",
                      flush=True)
    for what, values in ratios.items():
        print(f"{what:<28} median {100 * (statistics.median(values) - 1):+6.1f} %, "
              f"from {100 * (min(values) - 1):+.1f} to {100 * (max(values) - 1):+.1f}")


if __name__ == "__main__":
    main()
