// The learning rate (report, section 4.2) as segments of tokens, after a warm-up in steps. In the
// segment that begins after b tokens and ends after e, with t tokens seen before the step:
//
//   constant   lr = lr_e
//   linear     lr = lr_b + (lr_e - lr_b) p                           p = (t - b) / (e - b)
//   cosine     lr = lr_e + (lr_b - lr_e) (1 + cos(pi p)) / 2
//   warm-up    all of it times (s + 1) / warmup_steps                 steps s < warmup_steps
//
// lr_b is the rate that the segment before ends with, unless the segment has its own `from`. Behind
// the last segment its rate stays. Steps count from 0; the first has a rate above 0, the last of
// the warm-up the whole. The report: warm-up over 2000 steps, 2.2e-4 until 10T tokens, cosine to
// 2.2e-5 until 14.3T, 2.2e-5 until 14.633T, 7.3e-6 until 14.8T.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "tensor/view.h"

namespace minke {

struct LrSegment {
  Index until = 0;
  double lr = 0;
  std::string shape = "constant";
  std::optional<double> from = {};

  template <class Visitor>
  void visit(Visitor& field) {
    field("until", until, "tokens of the run at which it ends", at_least(1));
    field("lr", lr, "rate at its end", at_least(0));
    field("shape", shape, "way to it", one_of({"constant", "linear", "cosine"}));
    field("from", from, "rate at its beginning; absent: at the end of the one before", at_least(0));
  }
};

struct LrSchedule {
  std::int64_t warmup_steps = 0;
  std::vector<LrSegment> segments;  // at least one
};

// ConfigError that begins with `name` and names the segment ("optimizer.lr_segments[2]") when it
// does not end behind the one before, or has no rate to begin with.
void check_segments(const std::vector<LrSegment>& segments, std::string_view name);

// Of step s >= 0, which begins when `tokens` have been seen.
double learning_rate(const LrSchedule& schedule, std::int64_t step, Index tokens);

}  // namespace minke
