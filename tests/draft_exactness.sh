#!/usr/bin/env bash
# A million sampled continuations with and a million without drafts, against the model's own
# probabilities (src/infer/draft_exactness_test.cpp). Minutes; not part of test.sh.
#
#   tests/draft_exactness.sh [build directory, build/release]
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${1:-build/release}/infer_tests" --gtest_also_run_disabled_tests \
  --gtest_filter='DraftExactness.*'
