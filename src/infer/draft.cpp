#include "infer/draft.h"

#include <algorithm>
#include <bit>

namespace minke {
namespace {

std::size_t bucket_of(Index n_sequences) {
  return static_cast<std::size_t>(std::bit_width(static_cast<std::uint32_t>(n_sequences)) - 1);
}

}  // namespace

void MovingAverage::add(double value) {
  constexpr double slowest = 1. / 20;
  value_ += (value - value_) * std::max(slowest, 1. / static_cast<double>(++n_));
}

double DraftSwitch::gain_of(std::size_t i) const {
  const Bucket& b = buckets_[i];
  if (std::min({b.one.n(), b.two.n(), b.draft.n(), acceptance_.n()}) < kFewest) return 0;
  return (1 + acceptance_.value()) * b.one.value() / (b.two.value() + b.draft.value());
}

DraftSwitch::Use DraftSwitch::next(Index n_sequences) {
  if (mode_ != Drafting::Auto || n_sequences < 1) return last_;
  last_bucket_ = bucket_of(n_sequences);
  return last_ = next_measured(buckets_[last_bucket_]);
}

DraftSwitch::Use DraftSwitch::next_measured(Bucket& b) {
  ++b.steps;
  const double gain = gain_of(last_bucket_);
  if (gain == 0 || gain >= 1) {
    const Index every = b.one.n() < kFewest ? 2 : kUnchecked;
    b.off_for = 0;
    return {b.steps % every != 0, true};
  }
  if (b.trial_left == 0 && ++b.off_for >= kPause) {
    b.trial_left = kTrial;
    b.off_for = 0;
  }
  return {b.trial_left > 0, b.trial_left > 0};
}

void DraftSwitch::record(const DraftTiming& t) {
  if (t.n_verified > 0)
    acceptance_.add(static_cast<double>(t.n_accepted) / static_cast<double>(t.n_verified));
  if (t.n_sequences < 1) return;
  Bucket& b = buckets_[bucket_of(t.n_sequences)];
  if (t.n_verified > 0 && b.trial_left > 0) --b.trial_left;
  if (!t.only_decoding) return;
  if (t.n_verified == 0) b.one.add(t.main_s);
  if (t.n_verified == t.n_sequences) {
    b.two.add(t.main_s);
    b.draft.add(t.draft_s);
  }
}

}  // namespace minke
