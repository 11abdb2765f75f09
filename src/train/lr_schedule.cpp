#include "train/lr_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace minke {

void check_schedule(const LrSchedule& schedule) {
  const auto rate = [](const char* name, double value) {
    if (!std::isfinite(value) || value < 0)
      throw ConfigError(fmt::format("{} is {}, but must be at least 0 and finite", name, value));
  };
  const auto count = [](const char* name, std::int64_t value) {
    if (value < 0) throw ConfigError(fmt::format("{} is {}, but must be at least 0", name, value));
  };
  rate("lr", schedule.peak);
  rate("min_lr", schedule.min);
  count("warmup_steps", schedule.warmup_steps);
  count("constant_steps", schedule.constant_steps);
  count("decay_steps", schedule.decay_steps);
  if (schedule.min > schedule.peak)
    throw ConfigError(
        fmt::format("min_lr is {}, but must be at most lr = {}", schedule.min, schedule.peak));
}

double learning_rate(const LrSchedule& schedule, std::int64_t step) {
  if (step < schedule.warmup_steps)
    return schedule.peak * static_cast<double>(step + 1) /
           static_cast<double>(schedule.warmup_steps);
  const std::int64_t decayed = step - schedule.warmup_steps - schedule.constant_steps;
  if (decayed < 0 || schedule.decay_steps == 0) return schedule.peak;
  if (decayed >= schedule.decay_steps) return schedule.min;
  const double progress = static_cast<double>(decayed) / static_cast<double>(schedule.decay_steps);
  return schedule.min +
         (schedule.peak - schedule.min) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

LrSchedule cosine_over(std::int64_t total_steps, std::int64_t warmup_steps, double peak,
                       double min) {
  const std::int64_t warmup = std::min(warmup_steps, total_steps);
  return {.peak = peak, .min = min, .warmup_steps = warmup, .decay_steps = total_steps - warmup};
}

}  // namespace minke
