// The tensors of a training state whose parts are on several ranks, for who writes them: the first
// rank that holds a tensor its own, or rank 0 all of them, which it asks for one by one.
#pragma once
#include "base/function_ref.h"
#include "parallel/communicator.h"
#include "train/state_files.h"
#include "train/training_layout.h"

namespace minke {

// What `rank` is the first one to hold.
StatePart own_part(const TrainingLayout& layout, const ModelConfig& whole, int rank);

// Collective. f(all tensors) on rank 0, which needs the memory of one; the others answer until it
// has ended. On every rank `state` has whole what f asks of that rank.
void with_spread_tensors(Communicator& world, const TrainingLayout& layout, TrainState& state,
                         FunctionRef<void(StateTensors&)> f);

}  // namespace minke
