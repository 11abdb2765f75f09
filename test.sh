#!/usr/bin/env bash
# Installs what is needed, builds, and runs every test:
#   release   all tests
#   dev       address and undefined-behaviour sanitizers: unit, golden, format and thread tests
#   tsan      thread sanitizer: the tests of what has threads
#
#   ./test.sh [--release-only]
set -uo pipefail
cd "$(dirname "$0")"

presets=(release dev tsan)
case "${1:-}" in
  "") ;;
  --release-only) presets=(release) ;;
  *)
    echo "usage: ./test.sh [--release-only]" >&2
    exit 2
    ;;
esac

./tools/install_dependencies.sh tests || exit 1
jobs=$(./tools/build_jobs.sh)
# The sanitizers' defaults, made strict.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}

passed=0 failed=0 skipped=0 failures=""
attribute() { sed -n "s/.*<testsuite .*\b$1=\"\([0-9]*\)\".*/\1/p" <<<"$2"; }

# The failed tests of a report, each with the end of what it printed: said again as the last thing, where
# one looks first.
failures_of() {
  python3 - "$1" "$2" <<'EOF'
import sys
import xml.etree.ElementTree as tree
for case in tree.parse(sys.argv[2]).getroot().iter("testcase"):
    if case.get("status") == "fail":
        print(f"== {sys.argv[1]}: {case.get('name')} failed; the end of what it printed:")
        print("\n".join((case.findtext("system-out") or "").splitlines()[-25:]))
EOF
}

run_preset() {
  local preset=$1 report="$PWD/build/$1/tests.xml" suite all bad out
  echo "== $preset: build"
  cmake --preset "$preset" >/dev/null || return 1
  cmake --build --preset "$preset" --parallel "$jobs" || return 1
  echo "== $preset: test"
  rm -f "$report"
  ctest --preset "$preset" --parallel "$jobs" --output-junit "$report" --no-tests=error
  suite=$(tr '\n\t' '  ' <"$report" | grep -o '<testsuite [^>]*>') || return 1
  all=$(attribute tests "$suite")
  bad=$(attribute failures "$suite")
  out=$(($(attribute skipped "$suite") + $(attribute disabled "$suite")))
  [ "$bad" -eq 0 ] || failures+="$(failures_of "$preset" "$report")"$'\n'
  failed=$((failed + bad))
  skipped=$((skipped + out))
  passed=$((passed + all - bad - out))
}

status=0
for preset in "${presets[@]}"; do
  if ! run_preset "$preset"; then
    echo "== $preset: did not build or run" >&2
    status=1
  fi
done
echo -n "$failures"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && exit "$status"
exit 1
