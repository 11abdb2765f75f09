#!/usr/bin/env python3
"""Strong and weak scaling of minke train over ranks of this machine, as a table: tokens/s, and the bytes that a rank
sends for a token against minke plan traffic.

  tools/scaling.py MINKE [--layouts PxExD ...] [--rows R] [--steps N]

Strong: R rows a step, whatever the ranks. Weak: R rows for each rank. Where the ranks share the cores of one machine,
tokens/s say what ranks cost there, not what they win on machines of their own. Needs mpirun and a minke with MPI."""
import argparse
import os
import pathlib
import statistics
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
from mpi_test import why_skipped
from train_traffic_test import Bench, Layout

LAYOUTS = ["1x1x1", "1x1x2", "2x1x1", "1x2x1", "1x1x4", "2x2x1", "1x4x1", "1x1x8", "2x2x2", "4x2x1"]
RECIPE = {
    "model": {"hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 128, "num_hidden_layers": 8,
              "num_nextn_predict_layers": 1, "num_attention_heads": 4, "q_lora_rank": 96, "kv_lora_rank": 64,
              "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 16,
              "num_experts_per_tok": 4},
    "data": {"micro_batch": 1, "sequence_length": 128, "held_out_fraction": 0},
    "optimizer": {"lr": 0.0001, "min_lr": 0.0001, "warmup_steps": 0},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minke")
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    minke = os.path.abspath(args.minke)
    if why := why_skipped(minke):
        sys.exit(f"scaling.py: {why}")
    print(f"{os.cpu_count()} cores, shared by all ranks\n")
    print("| scaling | ranks | layout | rows a step | tokens/s | bytes a token and rank | planned | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="minke-scaling-") as directory:
        bench = Bench(minke, pathlib.Path(directory), {**RECIPE, "steps": args.steps})
        for kind in ("strong", "weak"):
            for layout in map(Layout.parse, args.layouts):
                if kind == "weak" and layout.ranks == 1:
                    continue  # the line of strong scaling
                rows = args.rows * (layout.ranks if kind == "weak" else 1)
                steps, model = bench.measured(layout, rows)
                speed = statistics.median(step["tokens_per_s"] for step in steps[1:])
                line = f"| {kind} | {layout.ranks} | {layout.name} | {rows} | {speed:.0f} |"
                if layout.ranks > 1:
                    sent = statistics.mean(step["sent_bytes_per_token"] for step in steps) / layout.ranks
                    plan = sum(bench.planned(model, layout, rows).values()) / layout.ranks
                    line += f" {sent:.0f} | {plan:.0f} | {sent / plan:.4f} |"
                else:
                    line += " 0 | 0 | |"
                print(line, flush=True)


if __name__ == "__main__":
    main()
