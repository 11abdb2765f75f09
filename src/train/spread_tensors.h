// The tensors of a training state whose parts are on several ranks, for who writes them: the ranks
// side by side, or rank 0 all of them, which it asks for one by one.
#pragma once
#include <map>
#include <string>

#include "base/function_ref.h"
#include "parallel/communicator.h"
#include "train/state_files.h"
#include "train/training_layout.h"

namespace minke {

// The rank that writes each tensor: of those that hold it, one with the fewest bytes to write.
std::map<std::string, int> writers(const TrainingLayout& layout, const ModelConfig& whole);
// What `rank` writes.
StatePart own_part(const std::map<std::string, int>& writers, int rank);

// Collective. f(all tensors) on rank 0, which needs the memory of one; the others answer until it
// has ended. On every rank `state` has whole what f asks of that rank.
void with_spread_tensors(Communicator& world, const TrainingLayout& layout, TrainState& state,
                         FunctionRef<void(StateTensors&)> f);

}  // namespace minke
