#!/usr/bin/env bash
# Balance of expert loads (the report's table 5, figure 9 and section 4.5.3): router biases without an auxiliary loss,
# against a sequence-wise and a batch-wise auxiliary loss. Held-out loss, and worst load over mean by layer.
# The rivals' factor of 0.003 is that of DeepSeek-V2's expert-level loss (arXiv 2405.04434, 3.1.2);
# the report does not say what its own rivals had. Nine runs,
# three of them those of fp8.sh.
#
#   recipes/results/balance.sh     settings of the environment: see runs.sh
set -euo pipefail
source "$(dirname "$0")/runs.sh"
variant base
variant sequence loss.balance=sequence loss.alpha=0.003
variant batch loss.balance=batch loss.alpha=0.003
results balance base sequence batch
