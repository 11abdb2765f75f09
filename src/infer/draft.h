// Speculative decoding with the model's own prediction module (the report's section 5.4.3).
//
// The token at every position is what the sampler draws from the main model's logits, with the
// random number of that position (infer/sampler.h). A draft of it is what the same sampler draws
// from the module's logits with the same random number. It is accepted when it is that token, and
// then the step that checked it has the logits of one more position. So the text is the same with
// and without drafts, whatever the module says; and because both draws use one random number, they
// agree more often than two independent ones would.
//
// Whether that pays depends on the model and the machine. With a the share of accepted drafts, t1
// and t2 the times of a step with one and with two tokens of each sequence, and td that of
// drafting, tokens/s change by the factor
//   gain = (1 + a) t1 / (t2 + td)
#pragma once
#include <array>
#include <cstdint>

#include "infer/batch_engine.h"

namespace minke {

// Moving average: the plain mean of the first values, then mostly of the last twenty.
class MovingAverage {
 public:
  void add(double value);
  Index n() const { return n_; }
  double value() const { return value_; }

 private:
  Index n_ = 0;
  double value_ = 0;
};

// What a step did and took.
struct DraftTiming {
  Index n_sequences = 0;  // that decoded
  Index n_verified = 0;   // of them with a draft
  Index n_accepted = 0;
  bool only_decoding = true;       // no prompt in the same step: its times can be compared
  double main_s = 0, draft_s = 0;  // the main model with sampling; the module with sampling
};

// Decides for each step whether drafts are made and checked. Auto measures, for batches of about
// the same size: it leaves drafts unchecked now and then to know t1, switches off where the gain is
// below 1, and tries again from time to time.
class DraftSwitch {
 public:
  // Off where the model has no module.
  explicit DraftSwitch(Drafting mode)
      : mode_(mode), last_{mode != Drafting::Off, mode != Drafting::Off} {}

  struct Use {
    bool verify = false;  // drafts that are there are checked in this step
    bool draft = false;   // and new ones made for the next
  };
  // Of the step that begins now, with so many sequences that decode.
  Use next(Index n_sequences);
  void record(const DraftTiming& timing);

  // Drafts are made, or are about to be tried: the module's rows of a new prompt may be of use.
  bool on() const { return last_.draft; }
  double gain() const { return gain_of(last_bucket_); }  // of the last batch size; 0: not known

 private:
  static constexpr Index kFewest = 4;      // values of each time before it counts
  static constexpr Index kUnchecked = 32;  // of so many steps, one measures t1
  static constexpr Index kPause = 256;     // steps without drafts until they are tried again,
  static constexpr Index kTrial = 16;      // for so many in which some sequence has one

  struct Bucket {  // batches of 1, 2-3, 4-7, ... sequences
    MovingAverage one, two, draft;
    Index steps = 0;
    Index off_for = 0;  // steps since drafts were switched off or the last trial ended
    Index trial_left = 0;
  };
  Use next_measured(Bucket& bucket);
  double gain_of(std::size_t bucket) const;

  Drafting mode_;
  std::array<Bucket, 32> buckets_{};
  std::size_t last_bucket_ = 0;
  MovingAverage acceptance_;
  Use last_;
};

// Whether a draft counts as right. Tests pass others, to see that they notice.
using AcceptanceRule = bool (*)(std::int32_t draft, std::int32_t target);
inline bool accept_equal(std::int32_t draft, std::int32_t target) {
  return draft == target;
}

}  // namespace minke
