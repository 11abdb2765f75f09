#!/usr/bin/env python3
"""minke launch: a job whose ranks are killed or stopped at random moments goes on by itself, and ends with
the bytes of a run that nobody disturbed; a stop leaves a checkpoint; what a restart cannot mend is not
started again.

usage: launch_test.py MINKE [--kills N] [--stops N] [--ranks N] [--seed S]

Ends with status 77 where mpirun is missing or minke has no MPI."""
import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, said, why_skipped
from train_kill_test import Bench, Failed, check, check_same, newest_checkpoint
from train_ranks_test import EVERY, STEPS, write_recipe

TIMEOUT_S = 240
BOUND_S = 6  # parallel.timeout_seconds of jobs whose ranks are stopped
MARGIN_S = 6  # for mpirun to end the job, on a busy machine
LATE = re.compile(r"minke: rank \d+ of \d+ on \S+(, step \d+, [^:]+)?: .* (was not complete|did not return) within")


def children(process):
    try:
        return [int(child) for child in
                pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


class Launch:
    """A launcher, its ranks, and what it says."""

    def __init__(self, bench, out, ranks, *flags, launch=(), env=()):
        self.minke, self.out = bench.minke, out
        self.log = pathlib.Path(f"{out}.log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [bench.minke, "--threads", "1", "launch", "--ranks", str(ranks), *launch, "train",
                 bench.directory / "recipe.json", "--out", out, *flags],
                env={**os.environ, **MPI_SETTINGS, **dict(env)}, stdout=log, stderr=log)

    def text(self):
        return self.log.read_text()

    def ended(self):
        return self.process.poll() is not None

    def ranks(self):
        """Processes that run minke under mpirun."""
        found = []
        for mpirun in children(self.process.pid):
            for rank in children(mpirun):
                try:
                    if os.path.samefile(f"/proc/{rank}/exe", self.minke):
                        found.append(rank)
                except OSError:
                    pass
        return found

    def signal_one(self, rng, number):
        """To a random rank, as soon as there is one; False when the launcher has ended."""
        while not self.ended():
            ranks = self.ranks()
            try:
                if ranks:
                    os.kill(rng.choice(ranks), number)
                    return True
            except ProcessLookupError:
                pass
            time.sleep(0.01)
        return False

    def wait_for(self, what):
        begun = time.monotonic()
        while not what() and not self.ended() and time.monotonic() - begun < TIMEOUT_S:
            time.sleep(0.02)

    def restarts(self):
        return [line for line in said(self.text()) if "launch: " in line and "; going on from" in line]

    def end(self, expected=0):
        status = self.process.wait(TIMEOUT_S)
        check(status == expected, f"{self.out}: exit status {status}, expected {expected}: {self.text()}")
        return self.text()


def kill_ranks(bench, rng, kills, ranks, whole, seconds):
    landed = runs = restarts = 0
    while landed < kills:
        runs += 1
        launch = Launch(bench, bench.directory / f"killed-{runs}", ranks, launch=("--restarts", "1000"))
        while not launch.ended():
            time.sleep(rng.uniform(0, seconds))
            if landed < kills and launch.signal_one(rng, signal.SIGKILL):
                landed += 1
        launch.end()
        restarts += len(launch.restarts())
        check("set aside" not in launch.text(), f"{launch.out}: a checkpoint was not whole: {launch.text()}")
        check_same(launch.out, whole)
    check(restarts > 0, "no kill was followed by a restart")
    print(f"kill -9 of one of {ranks} ranks at {landed} moments in {runs} runs, {restarts} restarts: all of "
          "them equal the undisturbed run")


def stop_ranks(bench, rng, stops, ranks, whole, seconds):
    worst = 0
    for number in range(stops):
        launch = Launch(bench, bench.directory / f"stopped-{number}", ranks, "--set",
                        f"parallel.timeout_seconds={BOUND_S}")
        launch.wait_for(launch.ranks)
        time.sleep(rng.uniform(0, seconds))
        if launch.signal_one(rng, signal.SIGSTOP):
            begun = time.monotonic()
            launch.wait_for(launch.restarts)
            worst = max(worst, time.monotonic() - begun)
            if launch.restarts():
                check(LATE.search(launch.text()),
                      f"{launch.out}: no line that names rank, host, step and operation: {launch.text()}")
        launch.end()
        check_same(launch.out, whole)
    check(worst < BOUND_S + MARGIN_S,
          f"a stopped rank was noticed after {worst:.1f} s, expected {BOUND_S} s and not much more")
    print(f"SIGSTOP of one of {ranks} ranks at {stops} moments: noticed and started again within "
          f"{worst:.1f} s (bound {BOUND_S} s)")


def ask_to_stop(bench, number, ranks, whole):
    launch = Launch(bench, bench.directory / f"asked-{number}", ranks)
    launch.wait_for(lambda: newest_checkpoint(launch.out) >= EVERY)
    launch.process.send_signal(number)
    text = launch.end(130)
    stopped = f"stopped after step {newest_checkpoint(launch.out)} of {STEPS}"
    check(len([line for line in said(text) if stopped in line]) == 1, f"expected '{stopped}' once: {text}")
    bench.finish(launch.out)
    check_same(launch.out, whole)
    print(f"{signal.Signals(number).name}: {stopped}")


def refuse(bench, expected, *flags, status=1, **settings):
    text = Launch(bench, bench.directory / "refused", 2, *flags, **settings).end(status)
    lines = said(text)
    check(len(lines) == 1 and expected in lines[0], f"expected one line with '{expected}': {text}")


def refuse_all(bench):
    refuse(bench, "so that each rank has as many micro-batches", "--set", "data.batch_size=6")
    refuse(bench, "there is no whole checkpoint", "--resume", "must")  # said by a rank
    refuse(bench, "Debian: openmpi-bin", env={"PATH": "/nowhere"})
    refuse(bench, "--hosts or --hostfile", launch=("--min-ranks", "1"), status=2)
    refuse(bench, "for --dry-run use minke train", "--dry-run", status=2)
    print("what a restart cannot mend is said once")


def run(bench, rng, arguments):
    write_recipe(bench)
    path = bench.directory / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe["data"]["micro_batch"] = recipe["batch_ramp"]["from"] // arguments.ranks
    path.write_text(json.dumps(recipe))
    whole = bench.directory / "whole"
    bench.finish(whole)
    refuse_all(bench)
    begun = time.monotonic()
    undisturbed = Launch(bench, bench.directory / "undisturbed", arguments.ranks)
    undisturbed.end()
    seconds = time.monotonic() - begun
    check_same(undisturbed.out, whole)
    ask_to_stop(bench, signal.SIGTERM, arguments.ranks, whole)
    stop_ranks(bench, rng, arguments.stops, arguments.ranks, whole, seconds / 2)
    kill_ranks(bench, rng, arguments.kills, arguments.ranks, whole, seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minke")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--stops", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if why := why_skipped(arguments.minke):
        print(f"skipped: {why}")
        return SKIPPED
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="minke-launch-") as directory:
        try:
            run(Bench(os.path.abspath(arguments.minke), pathlib.Path(directory), rng), rng, arguments)
        except Failed as failure:
            print(f"failed: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
