// The acceptance of MTP drafts on held-out rows while a model trains (model/mtp_acceptance.h).
#pragma once
#include "model/mtp_acceptance.h"
#include "train/training_data.h"

namespace minke {

// About `positions` of them, spread evenly over rows of every source; fewer where there are no
// more. For a glance during training: for an exact figure, `minke eval --task mtp_acceptance`.
Acceptance held_out_acceptance(const Model& model, const std::vector<HeldOutRows>& held_out,
                               Index sequence_length, Index positions = 512);

}  // namespace minke
