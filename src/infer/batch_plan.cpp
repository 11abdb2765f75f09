#include "infer/batch_plan.h"

#include <algorithm>

#include "infer/latent_pages.h"

namespace minke {
namespace {

class StepPlanner {
 public:
  StepPlanner(std::span<const PlannedSequence> running, const PlanLimits& limits)
      : running_(running),
        end_(running.size()),
        room_(limits.available_pages),
        budget_(limits.prefill_chunk) {}

  StepPlan plan() {
    for (std::size_t i = 0; i < end_; ++i) {
      const PlannedSequence& s = running_[i];
      const Index wanted = s.decodes() ? 1 + s.drafts : std::min(budget_, left_of_stage(s));
      const Index n = wanted == 0 ? 0 : make_room(i, wanted);
      if (n == 0) continue;
      room_ -= pages_missing(s, n);
      if (!s.decodes()) budget_ -= n;
      plan_.pieces.push_back({i, n, s.cached < s.prompt ? s.prompt_form : AttentionForm::Absorbed});
    }
    return std::move(plan_);
  }

 private:
  static Index left_of_stage(const PlannedSequence& s) {
    return (s.cached < s.prompt ? s.prompt : s.total) - s.cached;
  }
  static Index pages_missing(const PlannedSequence& s, Index n) {
    return std::max<Index>(0, pages_for(s.cached + n) - s.pages);
  }

  // How many of the wanted tokens can run: fewer where the rest would need more pages than there
  // are; none when the sequence had to be preempted itself or is stuck.
  Index make_room(std::size_t i, Index wanted) {
    const PlannedSequence& s = running_[i];
    for (;;) {
      const Index fit = (s.pages + room_) * kKeyTile - s.cached;
      if (fit > 0) return std::min(wanted, fit);
      if (end_ == 1) {
        plan_.stuck = true;
        return 0;
      }
      preempt_youngest();
      if (end_ == i) return 0;
    }
  }

  void preempt_youngest() {
    --end_;
    room_ += running_[end_].own_pages;
    plan_.preempted.push_back(end_);
  }

  std::span<const PlannedSequence> running_;
  std::size_t end_;  // those from here on are preempted
  Index room_, budget_;
  StepPlan plan_;
};

}  // namespace

StepPlan plan_step(std::span<const PlannedSequence> running, const PlanLimits& limits) {
  return StepPlanner(running, limits).plan();
}

std::size_t plan_admission(std::span<const PlannedSequence> running,
                           std::span<const PlannedSequence> waiting, const PlanLimits& limits) {
  // A sequence that catches up will need pages for all its tokens and the next.
  const auto pages_to_come = [](const PlannedSequence& s) {
    return s.decodes() ? 0 : std::max<Index>(0, pages_for(s.total + 1) - s.pages);
  };
  Index places = 0, backlog = 0, promised = 0;
  const auto count = [&](const PlannedSequence& s) {
    places += s.choices;
    backlog += s.decodes() ? 0 : s.total - s.cached;
    promised += pages_to_come(s);
  };
  for (const PlannedSequence& s : running) count(s);
  for (std::size_t n = 0; n < waiting.size(); ++n) {
    const PlannedSequence& s = waiting[n];
    const bool alone = running.empty() && n == 0;
    const bool fits = places + s.choices <= limits.max_batch && backlog < limits.prefill_chunk &&
                      promised + pages_to_come(s) <= limits.available_pages;
    if (!alone && !fits) return n;
    count(s);
  }
  return waiting.size();
}

}  // namespace minke
