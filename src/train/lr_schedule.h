// The learning rate as a function of the step (report, section 4.2): a linear warm-up from 0, then
// constant, then a cosine down to a minimum, then constant at the minimum.
//
//   warm-up   lr(s) = peak * (s + 1) / warmup_steps                       s < warmup_steps
//   constant  lr(s) = peak                                                for constant_steps
//   cosine    lr(s) = min + (peak - min) * (1 + cos(pi * p)) / 2          p = progress in
//   decay_steps after it  lr(s) = min
//
// A step s counts from 0; the first step already has a rate above 0, the last step of the warm-up
// has the peak. The report: warm-up over 2000 steps to 2.2e-4, constant until 10T tokens, cosine
// over 4.3T tokens to 2.2e-5 (then 2.2e-5 for 333B and 7.3e-6 for the last 167B: a further run at a
// constant rate).
#pragma once
#include <cstdint>

namespace minke {

struct LrSchedule {
  double peak = 3e-4;
  double min = 3e-5;
  std::int64_t warmup_steps = 0;
  std::int64_t constant_steps = 0;
  std::int64_t decay_steps = 0;  // 0: the peak for ever
};

// Throws ConfigError naming the field when a rate is negative, not finite, or min is above peak, or
// a count is negative.
void check_schedule(const LrSchedule& schedule);

// Of step s >= 0.
double learning_rate(const LrSchedule& schedule, std::int64_t step);

// A schedule that ends with `total_steps`: the warm-up is cut to it, the cosine takes what is left.
LrSchedule cosine_over(std::int64_t total_steps, std::int64_t warmup_steps, double peak,
                       double min);

}  // namespace minke
