#!/usr/bin/env python3
"""minke train on two processes under mpirun: the same bytes as one, also when one rank is told to stop
and the run goes on alone; on four that share pipeline and experts likewise; errors are one line.

usage: train_ranks_test.py MINKE       ends with status 77 where mpirun is missing or minke has no MPI"""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, said, why_skipped
from train_kill_test import Bench, Failed, check, check_same, newest_checkpoint

STEPS, EVERY = 60, 10
TIMEOUT_S = 240


def write_recipe(bench):
    path = bench.directory / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe.update(steps=STEPS, eval_every=40, parallel={"reduction": "fixed", "timeout_seconds": 120})
    recipe["data"].update(batch_size=8, micro_batch=2)
    recipe["batch_ramp"].update({"from": 4, "multiple": 4})
    recipe["checkpoint"].update(every=EVERY, minutes=0)
    recipe["optimizer"]["lr_segments"][-1]["until"] = STEPS * 8 * recipe["data"]["sequence_length"]
    path.write_text(json.dumps(recipe))


def start(bench, out, *flags, ranks=2):
    return subprocess.Popen(
        ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), bench.minke, "--threads", "1",
         "train", bench.directory / "recipe.json", "--out", out, *flags],
        env={**os.environ, **MPI_SETTINGS}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


def stop_one_rank(bench, out):
    process = start(bench, out)
    begun = time.monotonic()
    while newest_checkpoint(out) < EVERY and time.monotonic() - begun < TIMEOUT_S:
        time.sleep(0.02)
    ranks = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    check(len(ranks) == 2, f"mpirun has children {ranks}, expected two ranks")
    os.kill(int(ranks[1]), signal.SIGTERM)
    status, errors = end(process)
    check(status == 130, f"{out}: exit status {status} after SIGTERM, expected 130: {errors}")
    stopped = [line for line in said(errors) if "stopped after step" in line]
    check(len(stopped) == 1, f"{out}: expected one line that says where it stopped: {errors}")
    check(f"stopped after step {newest_checkpoint(out)} of {STEPS}" in stopped[0], stopped[0])


def settings(**values):
    return [part for name, value in values.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def mesh_of_four(bench):
    """2x2x1, dualpipe: the bytes of one rank, also from a checkpoint of two that share experts."""
    common = settings(compute="fp32", steps=12, data__micro_batch=1, batch_ramp__from=0, batch_ramp__tokens=0)
    one, four = bench.directory / "one-fp32", bench.directory / "mesh"
    bench.finish(one, *common)
    for ranks, layout in ((2, settings(parallel__experts=2)),
                          (4, settings(parallel__experts=2, parallel__pipeline=2))):
        stop = ("--stop-after", "6") if ranks == 2 else ()
        status, errors = end(start(bench, four, *common, *layout, *stop, ranks=ranks))
        check(status == 0, f"{ranks} ranks of a mesh: exit status {status}: {errors}")
    check_same(four, one, left_out=("mtp_acceptance",))


def refuse(bench, expected, *flags):
    status, errors = end(start(bench, bench.directory / "refused", *flags))
    lines = said(errors)
    check(status != 0 and len(lines) == 1 and expected in lines[0],
          f"exit status {status}, expected one line with '{expected}': {errors}")


def say_once(bench):
    """Help and a dry run are of the job, not of each rank."""
    alone = subprocess.run([bench.minke, "train", "--help"], capture_output=True, text=True, check=True).stdout
    out, errors = start(bench, bench.directory / "help", "--help").communicate(timeout=TIMEOUT_S)
    check(out == alone, f"two ranks print another help than one: {out} {errors}")
    out, errors = start(bench, bench.directory / "dry", "--dry-run", "--json").communicate(timeout=TIMEOUT_S)
    try:
        json.loads(out)
    except json.JSONDecodeError as error:
        raise Failed(f"--dry-run --json of two ranks is no JSON, {error}: {out} {errors}") from error


def run(minke, directory):
    bench = Bench(minke, directory, random.Random(1))
    write_recipe(bench)
    bench.finish(directory / "one")
    status, errors = end(start(bench, directory / "two"))
    check(status == 0, f"two ranks: exit status {status}: {errors}")
    check(len([line for line in said(errors) if "the model is in" in line]) == 1,
          f"expected one rank to speak: {errors}")
    check_same(directory / "two", directory / "one")
    stop_one_rank(bench, directory / "stopped")
    bench.finish(directory / "stopped")
    check_same(directory / "stopped", directory / "one")
    refuse(bench, "so that each rank has as many micro-batches", "--set", "data.batch_size=6")
    refuse(bench, "there is no option", "--set", "data.batch=6")
    refuse(bench, "take a multiple of 4 ranks, but 2 were started", *settings(parallel__pipeline=4))
    say_once(bench)
    mesh_of_four(bench)
    print("two ranks, also stopped and continued by one, and four that share pipeline and experts, equal one rank")


def main():
    minke = sys.argv[1]
    if why := why_skipped(minke):
        print(f"skipped: {why}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as directory:
        try:
            run(minke, pathlib.Path(directory))
        except Failed as failure:
            print(f"failed: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
