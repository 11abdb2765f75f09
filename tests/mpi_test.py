#!/usr/bin/env python3
"""The communicator over MPI: the tests of tests/mpi_ranks.cpp on 4 ranks, then jobs of which one rank
ends badly: the whole job must end soon, with a line that says who, where and why.

usage: mpi_test.py PROGRAM       ends with status 77 where mpirun is missing or minke has no MPI"""
import os
import shutil
import subprocess
import sys
import time

SKIPPED = 77
RANKS = 4
# Ranks outnumber the cores; waiting ranks then must not spin. What Open MPI keeps until the end of
# the process is no leak of ours.
SETTINGS = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1", "ASAN_OPTIONS": "detect_leaks=0"}
# How rank 1 ends, and what somebody must say of it.
ENDS = {
    "abort": "minke: rank 1 of 4 on {host}, step 5, experts: a loss of NaN",
    "exception": "minke: rank 1 of 4 on {host}, step 5, experts: no memory for the experts",
    "kill": "signal 9",
    "stop": "step 5, experts: the receive of 16 bytes from rank 1 on {host} (tag 3) was not "
            "complete within 500 ms",
}
SOON_S = 30


def why_skipped(minke):
    """Why minke cannot run on several processes here, or nothing."""
    if not shutil.which("mpirun"):
        return "there is no mpirun (Debian: openmpi-bin)"
    info = subprocess.run([minke, "info", "--cpu"], capture_output=True, text=True, check=True).stdout
    return "" if "Open MPI" in info else "minke was built without MPI (Debian: libopenmpi-dev)"


def said(errors):
    """What minke said, mpirun's own words left out."""
    return [line for line in errors.splitlines() if line.startswith("minke: ")]


def start(program, *flags):
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(RANKS), program, *flags]
    begun = time.monotonic()
    done = subprocess.run(command, env={**os.environ, **SETTINGS}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    return done.returncode, done.stdout, time.monotonic() - begun


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else ""
    if not program:
        print("skipped: minke was built without MPI (Debian: libopenmpi-dev)")
        return SKIPPED
    if not shutil.which("mpirun"):
        print("skipped: there is no mpirun (Debian: openmpi-bin)")
        return SKIPPED
    status, output, seconds = start(program)
    print(output if status else f"the tests on {RANKS} ranks passed in {seconds:.1f} s")
    wrong = [] if status == 0 else [f"the tests ended with status {status}"]
    for how, said in ENDS.items():
        status, output, seconds = start(program, f"--end={how}")
        said = said.format(host=os.uname().nodename)
        print(f"{how}: status {status} after {seconds:.1f} s")
        if status == 0 or said not in output or seconds > SOON_S:
            wrong.append(f"{how}: status {status} after {seconds:.1f} s, expected another status than "
                         f"0 within {SOON_S} s and the words '{said}' in:\n{output}")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
