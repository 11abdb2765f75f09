#!/usr/bin/env bash
# What this machine reaches, in two minutes: products, decoding, a prompt and training of the benchmark
# models, each beside the machine's limit in the same run (docs/benchmarks.md has more of each).
#
#   tools/speed.sh [MINKE=build/release/minke]
#
# Needs 3 GB of free memory and nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
minke=${1:-build/release/minke}
[ -x "$minke" ] || { echo "speed.sh: $minke: no such program; build it first (./demo.sh), or name it" >&2; exit 2; }

without_progress() { grep -v "^minke: measuring" >&2 || true; }  # errors are shown
"$minke" info --cpu | grep -E '^(processor|cores|AVX2|chosen)'
bench() { "$minke" bench "$@" 2> >(without_progress) | tail -n +3; }
"$minke" bench gemm --rounds 3 --smaller 4 2> >(without_progress) |
  grep -E '^what|^linear from memory +(1|8) x 2048 x 7168|^linear +[0-9]+ x [0-9]+ x [0-9]+ +(bf16|e4m3|fp8)'
bench decode --model moonlight-9l --rounds 3
bench decode --model moonlight-9l --rounds 3 --context 4096
bench decode --model moonlight-9l --rounds 3 --sequences 8
bench prefill --model moonlight-9l --rounds 1
bench train --rounds 1
