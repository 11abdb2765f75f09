// How often the first prediction module is right about the model's own greedy text (the report's
// section 5.4.3: 85 to 90 % of second tokens are accepted).
//
// At a position i of a given text, with the text up to i read by the main model and by module 0:
//   a = argmax main(t[0..i])                    the model's next token
//   m = argmax module 0(h[i], a)                what the module says comes after it
//   b = argmax main(t[0..i], a)                 what the model says
// The draft m is accepted when m = b. Between equal logits the lowest id wins. Nothing is drawn at
// random.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/cached_forward.h"

namespace minke {

struct Acceptance {
  Index positions = 0, accepted = 0;

  double share() const;  // not a number without any position
  // Wilson's interval of the share at 95 %, {0, 1} without any position. Positions of one text are
  // not independent, so it is a lower bound of the uncertainty.
  struct Interval {
    double low, high;
  };
  Interval interval() const;
  Acceptance& operator+=(const Acceptance& other) {
    positions += other.positions;
    accepted += other.accepted;
    return *this;
  }
};

struct AcceptanceSettings {
  Index every = 16;  // positions every - 1, 2 every - 1, ... of each text are looked at
  // Of the tokens behind the text; Absorbed needs weights loaded for it, which a model in training
  // does not have.
  AttentionForm form = AttentionForm::Absorbed;
};

// One result for each text, whose tokens (at least one) are of the vocabulary. All texts go through
// the model together, and their latent caches are in memory at once. ConfigError when the model has
// no prediction module. A text's result depends neither on the other texts nor on the threads.
std::vector<Acceptance> mtp_acceptance(const Model& model,
                                       std::span<const std::vector<std::int32_t>> texts,
                                       const AcceptanceSettings& settings);

}  // namespace minke
