#!/usr/bin/env python3
"""The bytes that the ranks of minke train send for a token, against those of minke plan traffic of the same model,
layout and forms: equal within 2 %. Pipelines, experts and data ranks, and every form of rows to experts.

usage: train_traffic_test.py MINKE [PxExD[:DISPATCH[:SCHEDULE]] ...]
ends with status 77 where mpirun is missing or minke has no MPI"""
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, why_skipped
from train_kill_test import Failed, check

STEPS, ROWS = 2, 16
WITHIN = 0.02
LAYOUTS = ["1x1x2", "1x1x4", "2x1x1:full:1f1b", "2x1x1", "2x1x1:full:dualpipev", "2x2x1", "1x4x1", "1x4x1:bf16",
           "1x4x1:fp8", "1x2x2", "2x2x2", "2x2x2:fp8"]
RECIPE = {
    "steps": STEPS,
    "model": {"hidden_size": 128, "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": 4,
              "num_nextn_predict_layers": 1, "num_attention_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32,
              "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 16,
              "num_experts_per_tok": 3},
    "data": {"micro_batch": 1, "sequence_length": 64, "held_out_fraction": 0},
    "optimizer": {"lr": 0.0001, "min_lr": 0.0001, "warmup_steps": 0},
}


@dataclasses.dataclass
class Layout:
    """PxExD of ranks, the form of rows to experts, the order of a pipeline."""
    name: str
    pipeline: int
    experts: int
    data: int
    dispatch: str = "full"
    schedule: str = "dualpipe"

    @classmethod
    def parse(cls, text):
        shape, *rest = text.split(":")
        return cls(text, *(int(n) for n in shape.split("x")), *rest)

    @property
    def pipelines(self):
        return self.experts * self.data

    @property
    def ranks(self):
        return self.pipeline * self.pipelines


class Bench:
    """Recipe, text and tokenizer. The planner takes every choice of experts to be as likely as any other, which is
    so, to less than what is tested, in a new model that reads many different tokens equally often."""

    def __init__(self, minke, directory, recipe):
        self.minke, self.directory = minke, directory
        rng = random.Random(1)
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(2000)]
        with open(directory / "text.jsonl", "w", encoding="utf-8") as out:
            for _ in range(200):
                out.write(json.dumps({"text": " ".join(rng.choices(words, k=100))}) + "\n")
        subprocess.run([minke, "train-tokenizer", "--data", directory / "text.jsonl", "--out",
                        directory / "tokenizer", "--vocab", "1024"], check=True, capture_output=True)
        self.recipe = json.loads(json.dumps(recipe))
        self.recipe["data"].update(paths=[str(directory / "text.jsonl")], tokenizer=str(directory / "tokenizer"))
        (directory / "recipe.json").write_text(json.dumps(self.recipe))

    def measured(self, layout, rows):
        """The metrics of every step of `rows` rows, and the model that was made."""
        out = self.directory / f"{layout.name.replace(':', '-')}-{rows}"
        settings = {"data.batch_size": rows, "parallel.pipeline": layout.pipeline, "parallel.experts": layout.experts,
                    "parallel.schedule": layout.schedule, "parallel.dispatch": layout.dispatch,
                    "parallel.timeout_seconds": 120}
        done = subprocess.run(
            ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(layout.ranks), self.minke, "--threads", "1",
             "train", self.directory / "recipe.json", "--out", out,
             *(flag for name, value in settings.items() for flag in ("--set", f"{name}={value}"))],
            env={**os.environ, **MPI_SETTINGS}, capture_output=True, text=True, check=False, timeout=240)
        check(done.returncode == 0, f"{layout.name}: exit status {done.returncode}: {done.stderr}")
        lines = [json.loads(line) for line in pathlib.Path(f"{out}.run/metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "loss" in line], out

    def planned(self, model, layout, rows):
        """Bytes a token by what they are for, of all ranks together."""
        cluster = self.directory / "cluster.json"  # one machine, as the ranks see it
        cluster.write_text(json.dumps({
            "name": "one machine", "devices": 64, "devices_per_node": 64, "peak_bf16_flops_per_s": 1e12,
            "memory_bytes": 1e12, "memory_bytes_per_s": 1e11, "link_inside_bytes_per_s": 1e10,
            "link_between_bytes_per_s": 1e9}))
        data = self.recipe["data"]
        done = subprocess.run(
            [self.minke, "plan", "traffic", "--model", model, "--cluster", cluster, "--pipeline", str(layout.pipeline),
             "--expert", str(layout.experts), "--data", str(layout.pipelines),
             "--micro-batches", str(rows // layout.pipelines // data["micro_batch"]),
             "--micro-batch", str(data["micro_batch"]), "--sequence", str(data["sequence_length"]),
             "--schedule", layout.schedule if layout.pipeline > 1 else "1f1b", "--no-fp8", "--gather", "fp32",
             "--dispatch", layout.dispatch, "--json"],
            check=False, capture_output=True, text=True)
        check(done.returncode == 0, f"plan traffic: {done.stderr}")
        return {row["what"]: row["bytes_per_token"] for row in json.loads(done.stdout)["step"]}


def run(minke, directory, names):
    bench = Bench(minke, directory, RECIPE)
    wrong = []
    for layout in map(Layout.parse, names):
        steps, model = bench.measured(layout, ROWS)
        check(len(steps) == STEPS, f"{len(steps)} steps tell what they sent, expected {STEPS}")
        parts = bench.planned(model, layout, ROWS)
        plan, sent = sum(parts.values()), [step["sent_bytes_per_token"] for step in steps]
        print(f"{layout.name}: {sent[-1] / layout.ranks:.0f} bytes a token sent by a rank, planned "
              f"{plan / layout.ranks:.0f} ({100 * (sent[-1] / plan - 1):+.2f} %): "
              + ", ".join(f"{what} {bytes / layout.ranks:.0f}" for what, bytes in parts.items()), flush=True)
        wrong += [f"{layout.name}: {bytes:.0f} bytes a token were sent, planned {plan:.0f}" for bytes in sent
                  if abs(bytes / plan - 1) >= WITHIN]
    check(not wrong, "; ".join(wrong))


def main():
    minke = os.path.abspath(sys.argv[1])
    if why := why_skipped(minke):
        print(f"skipped: {why}")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="minke-traffic-") as directory:
        try:
            run(minke, pathlib.Path(directory), sys.argv[2:] or LAYOUTS)
        except Failed as failure:
            print(f"failed: {failure}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
