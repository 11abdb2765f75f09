// The tensors of a training state whose parts are on several ranks, as rank 0 asks for them: each
// comes from the first rank that holds it. Rank 0 needs the memory of one tensor at a time.
#pragma once
#include "base/function_ref.h"
#include "parallel/communicator.h"
#include "train/state_tensors.h"
#include "train/training_layout.h"

namespace minke {

// Collective. f(all tensors) on rank 0; the others answer until it has ended. On every rank
// `state` has whole what that rank holds as the first one, moments and average included.
void with_spread_tensors(Communicator& world, const TrainingLayout& layout, TrainState& state,
                         FunctionRef<void(StateTensors&)> f);

}  // namespace minke
