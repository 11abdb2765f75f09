#!/usr/bin/env bash
# Strong and weak scaling over 1, 2, 4 and 8 ranks of this machine, with the bytes that a rank sends for a
# token against the planner's. No speed claim where ranks share cores.
#
#   recipes/results/scaling.sh     settings of the environment: MINKE (build/release/minke)
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 tools/scaling.py "${MINKE:-build/release/minke}" "$@"
