#!/usr/bin/env python3
"""How much of the exchange that 1F1B shows does DualPipe hide? Two emulated hosts, 1 Gbit/s and 1 ms apart,
share the experts of a small MoE model, so that each layer's rows cross between them.

  2 ranks   one a host, no pipeline: 1f1b against dualpipev, which gives each rank two stages
  4 ranks   two a host, pipeline x experts = 2 x 2: 1f1b against dualpipe

Schedules run in turn. Of one traced step each: what a rank shows of messages that were under way (nothing
computed meanwhile), the mean over ranks, experts and stages together; the hidden share is 1 - DualPipe's /
1F1B's. --loopback says how long a step takes where messages cost next to nothing.

usage: overlap_check.py MINKE SWITCH [--ranks N] [--times N] [--loopback] [--keep DIRECTORY] [--set NAME=VALUE]...
       from the repository's root, as root; SWITCH is tests/slow_switch.cpp, built
       ends with status 77 where there is no root, no mpirun, or no MPI in minke"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import emulated_hosts
from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, why_skipped

RECIPE = {
    "steps": 2, "seed": 1, "compute": "bf16", "eval_every": 0,
    "model": {"hidden_size": 512, "intermediate_size": 2048, "moe_intermediate_size": 1024, "num_hidden_layers": 5,
              "num_attention_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1,
              "topk_group": 1, "first_k_dense_replace": 0, "num_nextn_predict_layers": 0},
    "data": {"paths": ["corpus/en"], "tokenizer": "models/minke-tiny", "sequence_length": 256, "batch_size": 192,
             "held_out_rows": 4},
    "checkpoint": {"minutes": 100, "every": 0},
    "parallel": {"experts": 2, "dispatch": "bf16"},
}
# Micro-batches of 1024 tokens, 24 a pipeline; 48 of 512, since a longer pipeline leaves more of them unpaired.
LAYOUTS = {2: {"schedules": ("1f1b", "dualpipev"), "pipeline": 1, "micro_batch": 4},
           4: {"schedules": ("1f1b", "dualpipe"), "pipeline": 2, "micro_batch": 2}}
TRACED = 2  # the first step also warms up
LATENCY_US, MBIT = 1000, 1000
REPORT = re.compile(r"rank \d+: step ([\d.]+) s, idle [\d.]+ % \([\d.]+ s\); experts ([\d.]+) s under way, ([\d.]+) s "
                    r"shown, [\d.]+ % hidden; stages ([\d.]+) s under way, ([\d.]+) s shown, [\d.]+ % hidden; "
                    r"late ranks ([\d.]+) s")


class Step:
    """The traced step: means over ranks, in seconds."""

    def __init__(self, log):
        ranks = [[float(value) for value in line] for line in REPORT.findall(log)]
        if not ranks:
            raise RuntimeError(f"no step was traced: {log}")
        step, experts, experts_shown, stages, stages_shown, late = (statistics.mean(of) for of in zip(*ranks))
        self.step, self.under_way, self.shown, self.late = step, experts + stages, experts_shown + stages_shown, late

    def __str__(self):
        return (f"step {self.step:6.3f} s, messages under way {self.under_way:6.3f} s, shown {self.shown:6.3f} s, "
                f"late ranks {self.late:6.3f} s")


def run(arguments, schedule, slow):
    with tempfile.TemporaryDirectory(prefix="minke-overlap-") as directory:
        recipe = pathlib.Path(directory) / "recipe.json"
        recipe.write_text(json.dumps({**RECIPE, "out": f"{directory}/run"}))
        step = Step(output_of(arguments, recipe, schedule, slow))
        if arguments.keep:
            trace = pathlib.Path(directory) / "run.run" / f"trace-step-{TRACED}.json"
            shutil.copy(trace, arguments.keep / f"{schedule}-{arguments.ranks}-{'slow' if slow else 'fast'}.json")
        return step


def output_of(arguments, recipe, schedule, slow):
    train = [os.path.abspath(arguments.minke), "--threads", "1", "train", str(recipe), "--trace", str(TRACED), "--set",
             f"parallel.schedule={schedule}"]
    layout = LAYOUTS[arguments.ranks]
    for setting in (f"parallel.pipeline={layout['pipeline']}", f"data.micro_batch={layout['micro_batch']}",
                    *arguments.set):
        train += ["--set", setting]
    mpirun = ["mpirun", "--wdir", os.getcwd(), "-np", str(arguments.ranks)]
    env = {**os.environ, **MPI_SETTINGS}
    if slow:
        slots = arguments.ranks // 2
        hosts = ",".join(f"{emulated_hosts.address(host)}:{slots}" for host in range(2))
        mpirun = emulated_hosts.inside(0, *mpirun, "--host", hosts, "--map-by", "node")
        env.update(emulated_hosts.SETTINGS)
    else:
        mpirun += ["--oversubscribe", "--bind-to", "core:overload-allowed"]
    done = subprocess.run(mpirun + train, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{schedule}: exit status {done.returncode}: {done.stdout}")
    return done.stdout


def measure(arguments):
    schedules = LAYOUTS[arguments.ranks]["schedules"]
    hidden = []
    for time in range(arguments.times):
        steps = {}
        for schedule in schedules:
            steps[schedule] = run(arguments, schedule, True)
            print(f"{time + 1}: {schedule:9} {steps[schedule]}", flush=True)
        base, overlapped = (steps[schedule] for schedule in schedules)
        hidden.append(1 - overlapped.shown / base.shown)
        print(f"{time + 1}: of what {schedules[0]} shows, {schedules[1]} hides {100 * hidden[-1]:.1f} %", flush=True)
    for schedule in schedules if arguments.loopback else ():
        print(f"without the network: {schedule:9} {run(arguments, schedule, False)}", flush=True)
    print(f"{arguments.ranks} ranks: hidden {100 * statistics.median(hidden):.1f} % "
          f"({100 * min(hidden):.1f} to {100 * max(hidden):.1f} %, {len(hidden)} times)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minke")
    parser.add_argument("switch")
    parser.add_argument("--ranks", type=int, choices=LAYOUTS, default=2)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--loopback", action="store_true", help="also without the network")
    parser.add_argument("--keep", type=pathlib.Path, help="directory for the traces")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    if why := emulated_hosts.why_skipped() or why_skipped(arguments.minke):
        print(f"skipped: {why}")
        return SKIPPED
    with emulated_hosts.Hosts(os.path.abspath(arguments.switch), 2, LATENCY_US, MBIT):
        measure(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
