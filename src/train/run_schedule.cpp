#include "train/run_schedule.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace minke {
namespace {

// The short form (optimizer.lr, min_lr, schedule) as segments; the warm-up is cut to the run.
LrSchedule lr_schedule(const OptimizerRecipe& o, const BatchSchedule& batch,
                       std::int64_t total_steps) {
  if (!o.lr_segments.empty()) return {.warmup_steps = o.warmup_steps, .segments = o.lr_segments};
  const std::int64_t warmup = std::min(o.warmup_steps, total_steps);
  const Index begin = batch.tokens_before(warmup), end = batch.tokens_before(total_steps);
  LrSchedule s{.warmup_steps = warmup, .segments = {}};
  if (begin > 0 || o.schedule == "constant")
    s.segments.push_back({.until = std::max<Index>(begin, 1), .lr = o.lr});
  if (o.schedule == "cosine" && end > begin)
    s.segments.push_back({.until = end, .lr = o.min_lr, .shape = "cosine", .from = o.lr});
  return s;
}

}  // namespace

RunSchedule::RunSchedule(const Recipe& r)
    : batch_(r.data.batch_size, r.data.sequence_length, r.batch_ramp),
      ramp_(r.batch_ramp),
      loss_(r.loss),
      total_steps_(r.steps > 0 ? r.steps : batch_.steps_until(r.tokens)),
      lr_(lr_schedule(r.optimizer, batch_, total_steps_)) {
  check_segments(r.optimizer.lr_segments, "optimizer.lr_segments");
  check_switches(loss_.gamma_switches, "loss.gamma_switches");
  check_switches(loss_.mtp_lambda_switches, "loss.mtp_lambda_switches");
  // The last step may run over the end that the recipe gives in tokens.
  const Index run = r.steps > 0 ? total_tokens() : r.tokens;
  if (const Index end = lr_.segments.back().until; !r.optimizer.lr_segments.empty() && end < run)
    throw ConfigError(
        fmt::format("optimizer.lr_segments[{}]: until is {}, but the run has {} tokens; the last "
                    "segment must reach its end",
                    lr_.segments.size() - 1, end, run));
}

StepSchedule RunSchedule::values(std::int64_t step, Index tokens, Index rows) const {
  return {.step = step,
          .tokens = tokens,
          .rows = rows,
          .lr = learning_rate(lr_, step, tokens),
          .gamma = switched_value(loss_.gamma, loss_.gamma_switches, tokens),
          .mtp_lambda = switched_value(loss_.mtp_lambda, loss_.mtp_lambda_switches, tokens)};
}

StepSchedule RunSchedule::at_step(std::int64_t step) const {
  return values(step, batch_.tokens_before(step), batch_.rows(step));
}

StepSchedule RunSchedule::at_tokens(Index tokens) const {
  return values(batch_.step_at(tokens), tokens, batch_.rows_at(tokens));
}

std::vector<Index> RunSchedule::milestones() const {
  std::vector<Index> all{0, batch_.tokens_before(lr_.warmup_steps), total_tokens()};
  if (ramp_.from > 0)
    for (Index part : {1, 2}) all.push_back(ramp_.tokens / 2 * part);
  Index begin = 0;
  for (const LrSegment& segment : lr_.segments) {
    if (segment.shape != "constant") all.push_back(begin + (segment.until - begin) / 2);
    all.push_back(segment.until);
    begin = segment.until;
  }
  for (const auto* switches : {&loss_.gamma_switches, &loss_.mtp_lambda_switches})
    for (const TokenSwitch& s : *switches) all.push_back(s.at);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  while (all.back() > total_tokens()) all.pop_back();
  return all;
}

}  // namespace minke
