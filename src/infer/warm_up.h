// Steps on made-up tokens before the first request, so that memory is at its level when a server
// says that it is ready. Buffers are kept from step to step (tensor/block_cache.h), one for every
// size that was asked for: without this, memory grows under load until the sizes have been seen.
//
// The first steps are the largest that the settings allow: a full batch that decodes and checks
// drafts, together with a full piece of a prompt. Smaller ones follow, then a prompt as long as the
// context piece by piece, all for a limited time: a large model has large steps, and they may take
// longer than the memory of the rarer sizes is worth.
#pragma once
#include <functional>

#include "infer/batch_engine.h"

namespace minke {

struct WarmUpLimits {
  double seconds = 2;                         // nothing more begins after these
  std::function<bool()> cancelled = nullptr;  // asked between steps; true ends it
};

// What was run.
struct WarmUp {
  double seconds = 0;
  Index steps = 0;
  Index sequences = 0;      // most in one step
  Index prompt_tokens = 0;  // of the longest prompt, as far as it was read
};

// Resolved settings, as BatchEngine::settings(). Uses pages of its own and keeps none; nothing of
// it is seen in an engine's statistics or prefixes.
WarmUp warm_up(const Model& model, const BatchSettings& settings, const WarmUpLimits& limits = {});

}  // namespace minke
