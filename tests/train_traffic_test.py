#!/usr/bin/env python3
"""The bytes that the ranks of minke train send for a token, against those of minke plan traffic: equal within
2 %. Data parallel with ZeRO-1, on 2 and 4 processes.

usage: train_traffic_test.py MINKE [RANKS ...]     ends with status 77 where mpirun is missing or minke has no MPI"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, why_skipped
from train_kill_test import Bench, Failed, check

STEPS, ROWS, SEQUENCE = 2, 8, 32
WITHIN = 0.02


def measured(bench, ranks):
    """Bytes a token of every step."""
    out = bench.directory / f"ranks-{ranks}"
    done = subprocess.run(
        ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), bench.minke, "--threads", "1", "train",
         bench.directory / "recipe.json", "--out", out],
        env={**os.environ, **MPI_SETTINGS}, capture_output=True, text=True, check=False, timeout=240)
    check(done.returncode == 0, f"{ranks} ranks: exit status {done.returncode}: {done.stderr}")
    lines = [json.loads(line) for line in pathlib.Path(f"{out}.run/metrics.jsonl").read_text().splitlines()]
    return out, [line["sent_bytes_per_token"] for line in lines if "loss" in line]


def planned(bench, model, ranks):
    done = subprocess.run(
        [bench.minke, "plan", "traffic", "--model", model, "--cluster", f"cpux{ranks}", "--pipeline", "1",
         "--expert", "1", "--data", str(ranks), "--micro-batches", str(ROWS // ranks), "--micro-batch", "1",
         "--sequence", str(SEQUENCE), "--schedule", "1f1b", "--no-fp8", "--gather", "fp32", "--json"],
        check=True, capture_output=True, text=True)
    return sum(row["bytes_per_token"] for row in json.loads(done.stdout)["step"])


def run(minke, directory, all_ranks):
    bench = Bench(minke, directory, random.Random(1))
    path = directory / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe["data"].update(batch_size=ROWS, micro_batch=1, sequence_length=SEQUENCE)
    recipe.pop("batch_ramp")
    recipe["steps"] = STEPS
    recipe["optimizer"] = {"lr": 0.001, "warmup_steps": 0}
    recipe["parallel"] = {"reduction": "fast", "timeout_seconds": 120}
    path.write_text(json.dumps(recipe))
    for ranks in all_ranks:
        model, steps = measured(bench, ranks)
        check(len(steps) == STEPS, f"{len(steps)} steps tell what they sent, expected {STEPS}")
        plan = planned(bench, model, ranks)
        for sent in steps:
            check(abs(sent / plan - 1) < WITHIN,
                  f"{ranks} ranks: {sent:.0f} bytes a token were sent, planned {plan:.0f}")
        print(f"{ranks} ranks: {steps[-1]:.0f} bytes a token sent by a rank, planned {plan:.0f} "
              f"({100 * (steps[-1] / plan - 1):+.2f} %)")


def main():
    minke = os.path.abspath(sys.argv[1])
    if why := why_skipped(minke):
        print(f"skipped: {why}")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="minke-traffic-") as directory:
        try:
            run(minke, pathlib.Path(directory), [int(n) for n in sys.argv[2:]] or [2, 4])
        except Failed as failure:
            print(f"failed: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
