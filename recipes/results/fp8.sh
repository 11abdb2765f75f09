#!/usr/bin/env bash
# FP8 against BF16 (the report's section 3.3 and appendix B.1: a relative loss error below 0.25 %): the
# same model, seeds and data in BF16, in FP8 with FP32 scales as the report, and with scales that are
# powers of two. Loss error of the running mean, memory and speed of each. What two BF16 runs differ by
# that only add in another order (micro-batches of two rows) says how much of it is FP8's. Twelve runs.
#
#   recipes/results/fp8.sh         settings of the environment: see runs.sh
set -euo pipefail
source "$(dirname "$0")/runs.sh"
variant base
variant fp8-float compute=fp8 fp8.scales=float
variant fp8-power-of-two compute=fp8 fp8.scales=power_of_two
variant rounding data.micro_batch=2
results fp8 base fp8-float fp8-power-of-two rounding
