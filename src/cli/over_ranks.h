// Commands that use a model in one process, or in those that a launcher started (docs/ranks.md):
// rank 0 does what the command says, the others hold their part of the model for it
// (infer/model_ranks.h).
#pragma once
#include "base/function_ref.h"
#include "cli/model_flags.h"

namespace minke {

// `work` runs on rank 0, with what load_for_use needs to call the others, or nullptr when there are
// none; what it throws is thrown here once all ranks have ended. The others return when it has.
void over_ranks(const ModelFlags& flags, FunctionRef<void(ModelCaller*)> work);

}  // namespace minke
