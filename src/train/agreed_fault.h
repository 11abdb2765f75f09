// What is wrong with a step, found by ranks that each look at the part of the model that they hold.
#pragma once
#include <optional>

#include "parallel/communicator.h"
#include "train/guard.h"

namespace minke {

// Collective. The fault that a rank with the whole model would have found, or nothing when no rank
// found one; the same on all.
std::optional<Fault> agreed_fault(Communicator& ranks, const std::optional<Fault>& own);

}  // namespace minke
