// The moving average of the weights over a part of one tensor (train/ema.h has the formula): what
// one rank does to all tensors, and what each of several ranks does to its own part, with the same
// bits.
#pragma once
#include <string>

#include "parallel/optimizer_pieces.h"

namespace minke {

struct EmaUpdate {
  double decay = 0;
  std::int64_t n = 1;  // update number, from 1
};

// ema += (1 - decay) / (1 - decay^n) (w - ema), for elements [begin, begin + w.size()) of the
// tensor `name`. ema is FP32, or BF16 rounded by a chance that is a function of name, element and
// n.
void average_into(const EmaUpdate& update, const std::string& name, Index begin,
                  View1<const float> w, const TensorPart& ema);

// x as the BF16 below or above it: above where the 16 lowest of `random` bits and the bits of x
// that BF16 lacks carry into those it has. Exact when BF16 has x. x finite.
BF16 round_by_chance(float x, std::uint64_t random);

}  // namespace minke
