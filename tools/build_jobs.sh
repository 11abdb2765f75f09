#!/usr/bin/env bash
# Prints how many compilers to run at once: one a core, and no more than one for every 2 GB of memory;
# limits of the control group count.
set -euo pipefail

cores=$(nproc)
memory=$(awk '/^MemAvailable:/ {print $2 * 1024}' /proc/meminfo)
if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
  limit=$(((quota + period - 1) / period))
  [ "$limit" -ge "$cores" ] || cores=$limit
fi
if read -r limit 2>/dev/null </sys/fs/cgroup/memory.max && [ "$limit" != max ]; then
  memory=$(awk -v a="$memory" -v b="$limit" 'BEGIN {print a < b ? a : b}')
fi
awk -v cores="$cores" -v memory="$memory" 'BEGIN {
  jobs = int(memory / 2e9)
  if (jobs > cores) jobs = cores
  print jobs < 1 ? 1 : jobs
}'
