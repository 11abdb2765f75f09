#include "train/batch_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace minke {
namespace {

Index divided_up(Index a, Index b) {
  return a / b + (a % b != 0);
}

}  // namespace

BatchSchedule::BatchSchedule(Index rows, Index positions, const BatchRampRecipe& ramp)
    : rows_(rows), positions_(positions), ramp_(ramp) {
  if (ramp_.from > rows)
    throw ConfigError(fmt::format("batch_ramp.from is {}, but must be at most data.batch_size = {}",
                                  ramp_.from, rows));
  if ((ramp_.from > 0) != (ramp_.tokens > 0))
    throw ConfigError(
        fmt::format("batch_ramp.from is {} and batch_ramp.tokens is {}, but both must be "
                    "above 0 (a ramp) or both 0 (none)",
                    ramp_.from, ramp_.tokens));
  if (ramp_.from == rows) ramp_.from = 0;  // nothing to grow
  stages_.push_back({0, 0, size(0)});
  for (Index i = 1; i < n_sizes(); ++i) {
    Stage& last = stages_.back();
    const Index begin = threshold(i), per_step = last.rows * positions_;
    const Index steps =
        begin > last.first_token ? divided_up(begin - last.first_token, per_step) : 0;
    if (steps == 0)  // the size before is passed over by a step that was longer than its stage
      last.rows = size(i);
    else
      stages_.push_back({last.first_step + steps, last.first_token + steps * per_step, size(i)});
  }
}

Index BatchSchedule::n_sizes() const {
  return ramp_.from == 0 ? 1 : 1 + divided_up(rows_ - ramp_.from, ramp_.multiple);
}

Index BatchSchedule::size(Index i) const {
  return ramp_.from == 0 ? rows_ : std::min(rows_, ramp_.from + i * ramp_.multiple);
}

Index BatchSchedule::threshold(Index i) const {
  const Index grown = size(i) - ramp_.from, span = rows_ - ramp_.from;
  if (i == 0 || ramp_.from == 0) return 0;
  if (grown == span) return ramp_.tokens;
  if (ramp_.shape == "geometric") {
    const auto from = static_cast<double>(ramp_.from);
    const double share =
        std::log(static_cast<double>(size(i)) / from) / std::log(static_cast<double>(rows_) / from);
    return static_cast<Index>(std::ceil(share * static_cast<double>(ramp_.tokens)));
  }
  // tokens grown / span without the product, which need not fit.
  return ramp_.tokens / span * grown + divided_up(ramp_.tokens % span * grown, span);
}

Index BatchSchedule::rows_at(Index tokens) const {
  Index low = 0, high = n_sizes();  // the size sought is in [low, high)
  while (high - low > 1) {
    const Index middle = low + (high - low) / 2;
    (threshold(middle) <= tokens ? low : high) = middle;
  }
  return size(low);
}

const BatchSchedule::Stage& BatchSchedule::stage_of_step(std::int64_t step) const {
  const auto after =
      std::upper_bound(stages_.begin(), stages_.end(), step,
                       [](std::int64_t s, const Stage& stage) { return s < stage.first_step; });
  return *std::prev(after);
}

const BatchSchedule::Stage& BatchSchedule::stage_of_token(Index tokens) const {
  const auto after =
      std::upper_bound(stages_.begin(), stages_.end(), tokens,
                       [](Index t, const Stage& stage) { return t < stage.first_token; });
  return *std::prev(after);
}

Index BatchSchedule::tokens_before(std::int64_t step) const {
  const Stage& stage = stage_of_step(step);
  return stage.first_token + (step - stage.first_step) * stage.rows * positions_;
}

std::int64_t BatchSchedule::step_at(Index tokens) const {
  const Stage& stage = stage_of_token(tokens);
  return stage.first_step + (tokens - stage.first_token) / (stage.rows * positions_);
}

std::int64_t BatchSchedule::steps_until(Index tokens) const {
  const std::int64_t step = step_at(tokens);
  return tokens_before(step) == tokens ? step : step + 1;
}

}  // namespace minke
