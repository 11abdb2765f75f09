#!/usr/bin/env python3
"""On an emulated Haswell, which has AVX2 and nothing newer: an instruction that leaked out of its form
stops the program there. The operations' tests pass, and the model gives the bits that the AVX2 and the
scalar form give on this processor.

usage: haswell_test.py MINKE GOLDEN TESTS [TESTS...]
"""
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

QEMU = shutil.which("qemu-x86_64")
SKIPPED = 77


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def emulated(*command):
    return run(QEMU, "-cpu", "Haswell", *command)


def check_forward(minke, case, folder):
    tokens = os.path.join(case, "expected.safetensors")
    for isa in ("avx2", "scalar"):
        for compute in ("fp32", "bf16"):
            here, there = (os.path.join(folder, name) for name in ("here", "there"))
            flags = ["forward", "--model", case, "--tokens", tokens, "--compute", compute, "--isa", isa]
            run(minke, *flags, "--out", here)
            emulated(minke, *flags, "--out", there)
            if not filecmp.cmp(here, there, shallow=False):
                sys.exit(f"{case}, {isa}, {compute}: other bits than on this processor")
            print(f"{os.path.basename(case)} {isa} {compute}: the same bits")


def main():
    minke, golden, tests = sys.argv[1], sys.argv[2], sys.argv[3:]
    if not QEMU:
        print("skipped: qemu-x86_64 was not found (Debian: qemu-user)")
        return SKIPPED
    told = emulated(minke, "info", "--cpu")
    if "chosen        avx2" not in told:
        sys.exit("a Haswell should choose avx2:\n" + told)
    with tempfile.TemporaryDirectory() as folder:
        for case in ("tiny-fp8", "tiny-grouped"):
            check_forward(minke, os.path.join(golden, case), folder)
    for program in tests:
        print(emulated(program, "--gtest_brief=1").strip().splitlines()[-1], os.path.basename(program), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
