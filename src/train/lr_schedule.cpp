#include "train/lr_schedule.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace minke {
namespace {

// `segments[i]` at `tokens`, which lie in it.
double rate_in(const std::vector<LrSegment>& segments, std::size_t i, Index tokens) {
  const LrSegment& segment = segments[i];
  if (segment.shape == "constant") return segment.lr;
  const Index begin = i > 0 ? segments[i - 1].until : 0;
  const double first = segment.from.value_or(i > 0 ? segments[i - 1].lr : segment.lr);
  const double progress =
      static_cast<double>(tokens - begin) / static_cast<double>(segment.until - begin);
  if (segment.shape == "linear") return first + (segment.lr - first) * progress;
  return segment.lr + (first - segment.lr) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

double rate_at(const std::vector<LrSegment>& segments, Index tokens) {
  for (std::size_t i = 0; i < segments.size(); ++i)
    if (tokens < segments[i].until) return rate_in(segments, i, tokens);
  return segments.back().lr;
}

}  // namespace

void check_segments(const std::vector<LrSegment>& segments, std::string_view name) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const LrSegment& segment = segments[i];
    const auto refuse = [&](const std::string& what) {
      throw ConfigError(fmt::format("{}[{}]: {}", name, i, what));
    };
    if (i > 0 && segment.until <= segments[i - 1].until)
      refuse(fmt::format("until is {}, but must be above {}, where segment {} ends", segment.until,
                         segments[i - 1].until, i - 1));
    if (segment.shape == "constant" && segment.from)
      refuse(fmt::format("from is {}, but a constant segment has the one rate lr = {}",
                         *segment.from, segment.lr));
    if (i == 0 && segment.shape != "constant" && !segment.from)
      refuse(fmt::format("from is missing: the rate that the first segment's {} begins with",
                         segment.shape));
  }
}

double learning_rate(const LrSchedule& schedule, std::int64_t step, Index tokens) {
  const double rate = rate_at(schedule.segments, tokens);
  if (step >= schedule.warmup_steps) return rate;
  return rate * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
}

}  // namespace minke
