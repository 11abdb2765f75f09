#!/usr/bin/env bash
# Multi-token prediction on against off (the report's table 4 and section 5.4.3: 85 to 90 % of second tokens are
# accepted): held-out loss of the main head, which alone stays in use, and acceptance. Six runs,
# three of them those of fp8.sh.
#
#   recipes/results/mtp.sh         settings of the environment: see runs.sh
set -euo pipefail
source "$(dirname "$0")/runs.sh"
variant base
variant no-mtp model.num_nextn_predict_layers=0
results mtp base no-mtp
