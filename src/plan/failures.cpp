#include "plan/failures.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"

namespace minke {
namespace {

void check(const FailureModel& m) {
  if (!(m.mtbf_s > 0))
    throw ConfigError(
        fmt::format("the mean time between failures is {} s, but must be above 0", m.mtbf_s));
  if (!(m.checkpoint_s >= 0) || !(m.restart_s >= 0))
    throw ConfigError("the times of a checkpoint and of a restart must be at least 0 s");
}

}  // namespace

double job_mtbf_s(double device_mtbf_hours, double devices) {
  return device_mtbf_hours * 3600 / devices;
}

double goodput(const FailureModel& m, double interval_s) {
  check(m);
  if (!(interval_s > 0))
    throw ConfigError(
        fmt::format("the checkpoint interval is {} s, but must be above 0", interval_s));
  const double M = m.mtbf_s;
  const double wall = M * std::exp(m.restart_s / M) * std::expm1((interval_s + m.checkpoint_s) / M);
  return std::isfinite(wall) ? interval_s / wall : 0;
}

double best_interval_s(const FailureModel& m) {
  check(m);
  const double c = m.checkpoint_s / m.mtbf_s;
  // x + c + log(1 - x) = 0 for x = T / M in (0, 1): falling, so halve.
  double low = 0, high = 1;
  for (int i = 0; i < 200; ++i) {
    const double x = (low + high) / 2;
    (x + c + std::log1p(-x) > 0 ? low : high) = x;
  }
  return low * m.mtbf_s;
}

double expected_failures(const FailureModel& m, double wall_s) {
  check(m);
  return wall_s / m.mtbf_s;
}

}  // namespace minke
