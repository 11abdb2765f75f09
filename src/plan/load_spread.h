// Unequal experts: every device holds other ones, so each computes for a share of the mean time of
// its own, the same for all micro-batches of a step.
#pragma once
#include "base/random.h"
#include "model/config.h"

namespace minke {

struct LoadSpread {
  double spread = 0;  // S: loads are uniform in [1 - S, 1 + S]
  std::uint64_t seed = 1;

  // Of `device` for the stage it holds of `phase`.
  double load(Index device, int phase) const {
    if (spread == 0) return 1;
    const auto which = static_cast<std::uint64_t>(device * 2 + phase);
    const double uniform = static_cast<double>(mix_bits(mix_bits(seed) + which) >> 11) * 0x1p-53;
    return 1 + spread * (2 * uniform - 1);
  }
};

}  // namespace minke
