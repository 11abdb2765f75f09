#!/usr/bin/env python3
"""A training run that is killed at random moments, and one whose disk is full at random moments.

Usage: train_kill_test.py MINKE [--kills N] [--full N] [--seed S]

A run with a checkpoint every other step is ended by kill -9 N times, each time after a random part
of the time that the whole run takes, and started again. Each time the newest complete checkpoint
must load; in the end model, moving average and metrics (without times) must be, byte for byte, those
of a run that nobody disturbed.

The same on a small tmpfs that is filled up to a random number of free bytes: the run must end with
one line on stderr, lose no checkpoint that was there, and go on when there is room again. Mounting
needs root; without it this part is left out, which is printed.
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

STEPS = 24
SETTINGS = {
    "steps": STEPS,
    "eval_every": 8,
    "record_loads_every": 4,
    "model": {
        "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "initializer_range": 0.1},
    "data": {"sequence_length": 32, "batch_size": 8, "micro_batch": 3, "held_out_fraction": 0.1,
             "held_out_rows": 8},
    "batch_ramp": {"from": 4, "tokens": 2000},
    "optimizer": {
        "warmup_steps": 4,
        "lr_segments": [{"until": 3000, "lr": 0.004},
                        {"until": 10000, "lr": 0.0004, "shape": "cosine"}]},
    "loss": {"gamma": 0.01, "gamma_switches": [{"at": 4000, "value": 0}],
             "mtp_lambda_switches": [{"at": 3000, "value": 0.1}]},
    "ema": {"decay": 0.9, "dtype": "bf16"},
    "guard": {"spike": "skip", "spike_deviations": 1, "window": 4},
    "checkpoint": {"every": 2, "keep": 2},
    "export": {"ema": True},
}


class Failed(Exception):
    pass


def check(holds, what):
    if not holds:
        raise Failed(what)


def write_text(path, rng):
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(80)]
    with open(path, "w", encoding="utf-8") as out:
        for number in range(60):
            text = " ".join(rng.choices(words, k=60))
            out.write(json.dumps({"text": text, "source": "ab"[number % 2]}) + "\n")


class Bench:
    """Recipe, text and tokenizer, and runs of them."""

    def __init__(self, minke, directory, rng):
        self.minke, self.directory = minke, directory
        write_text(directory / "text.jsonl", rng)
        subprocess.run([minke, "train-tokenizer", "--data", directory / "text.jsonl", "--out",
                        directory / "tokenizer", "--vocab", "300"],
                       check=True, capture_output=True)
        recipe = json.loads(json.dumps(SETTINGS))
        recipe["data"]["paths"] = [str(directory / "text.jsonl")]
        recipe["data"]["tokenizer"] = str(directory / "tokenizer")
        (directory / "recipe.json").write_text(json.dumps(recipe))

    def start(self, out, *flags):
        return subprocess.Popen([self.minke, "train", self.directory / "recipe.json", "--out", out, *flags],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, out, *flags):
        process = self.start(out, *flags)
        _, errors = process.communicate()
        check(process.returncode == 0, f"{out}: exit status {process.returncode}: {errors}")


def metrics(out, left_out=()):
    lines = []
    for line in pathlib.Path(f"{out}.run/metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "start" not in entry:
            for key in ("tokens_per_s", "sent_bytes_per_token", *left_out):  # the second of several ranks alone
                entry.pop(key, None)
            lines.append(entry)
    return lines


def check_same(out, whole, left_out=()):
    for model in ("", ".ema"):
        check(pathlib.Path(f"{out}{model}/model.safetensors").read_bytes() ==
              pathlib.Path(f"{whole}{model}/model.safetensors").read_bytes(),
              f"{out}{model}/model.safetensors is not that of the undisturbed run")
    check(metrics(out, left_out) == metrics(whole, left_out),
          f"{out}.run/metrics.jsonl is not that of the undisturbed run")


def newest_checkpoint(out):
    """The step of the newest complete checkpoint, -1 without one."""
    steps = [-1]
    for path in pathlib.Path(f"{out}.run/checkpoints").glob("step-*"):
        name = path.name[5:]
        if name.isdigit() and (path / "manifest.json").exists():
            steps.append(int(name))
    return max(steps)


def kill_test(bench, rng, kills, whole, seconds):
    landed, runs, out = 0, 0, None
    before = -1
    while landed < kills:
        if out is None:
            runs += 1
            out = bench.directory / f"killed-{runs}"
            before = -1
        process = bench.start(out)
        time.sleep(rng.uniform(0, seconds))
        alive = process.poll() is None
        if alive:
            process.send_signal(signal.SIGKILL)
            landed += 1
        _, errors = process.communicate()
        check(alive or process.returncode == 0, f"{out}: exit status {process.returncode}: {errors}")
        check("set aside" not in errors and "damaged" not in errors,
              f"{out}: a checkpoint was not whole: {errors}")
        check(newest_checkpoint(out) >= before, f"{out}: the checkpoint of step {before} is lost")
        before = newest_checkpoint(out)
        if not alive:
            check_same(out, whole)
            out = None
    if out is not None:
        bench.finish(out)
        check_same(out, whole)
    print(f"killed {landed} times in {runs} runs: all of them equal the undisturbed one")


def fill(path, free):
    """Leaves about `free` bytes on the file system of `path`."""
    status = os.statvfs(path)
    room = status.f_bavail * status.f_frsize
    with open(path / "filler", "wb") as out:
        os.posix_fallocate(out.fileno(), 0, max(1, room - free))


def full_disk_test(bench, rng, times, whole):
    mount = bench.directory / "small"
    mount.mkdir()
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount],
            capture_output=True).returncode != 0:
        print("full disk: left out, a tmpfs cannot be mounted here")
        return
    try:
        landed, runs, out = 0, 0, None
        before = -1
        while landed < times:
            if out is None:
                runs += 1
                out = mount / f"full-{runs}"
                before = -1
            fill(mount, rng.randint(0, 3 << 20))
            process = bench.start(out)
            _, errors = process.communicate()
            (mount / "filler").unlink()
            if process.returncode != 0:
                landed += 1
                said = [line for line in errors.splitlines() if "No space left" in line]
                check(len(said) == 1 and errors.rstrip().endswith(said[0]),
                      f"{out}: a full disk should give one line that says so, not: {errors}")
                check("set aside" not in errors, f"{out}: a checkpoint was not whole: {errors}")
            check(newest_checkpoint(out) >= before, f"{out}: the checkpoint of step {before} is lost")
            before = newest_checkpoint(out)
            if process.returncode == 0 or rng.random() < 0.2:
                bench.finish(out)
                check_same(out, whole)
                for path in sorted(mount.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                out = None
        if out is not None:
            bench.finish(out)
            check_same(out, whole)
        print(f"disk full {landed} times in {runs} runs: nothing saved was lost, all went on")
    finally:
        subprocess.run(["umount", mount], check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minke")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--full", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="minke-kill-") as directory:
        bench = Bench(os.path.abspath(arguments.minke), pathlib.Path(directory), rng)
        whole = bench.directory / "whole"
        begin = time.monotonic()
        bench.finish(whole)
        seconds = time.monotonic() - begin
        print(f"undisturbed: {STEPS} steps in {seconds:.2f} s")
        try:
            kill_test(bench, rng, arguments.kills, whole, seconds)
            full_disk_test(bench, rng, arguments.full, whole)
        except Failed as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
