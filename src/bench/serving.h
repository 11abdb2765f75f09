// What the batch engine makes of a model, without HTTP: tokens/s of several streams, the time to
// the first token of a long prompt, what a cached prefix saves, and what drafts gain.
#pragma once
#include <vector>

#include "bench/bench_model.h"
#include "bench/result.h"

namespace minke::bench {

struct ServingBench {
  ModelChoice choice = {};
  std::vector<std::int64_t> streams = {1, 8, 32};
  Index tokens = 64;    // that each stream generates
  Index prompt = 4096;  // of the time to the first token
  Index modules = 0;  // random MTP modules of a benchmark model: the cost of drafts, not their gain
  int rounds = 5;
};

// "serve streams MODEL" for each number of streams, against the same work done by step() called
// directly (infer/engine.h), measured in turn: the share is what is left of it. "serve first token
// MODEL" against the limit of the products, "serve cached prefix MODEL" against "first token". With
// MTP modules "serve drafts MODEL": one stream with drafts always, against one without.
std::vector<Result> serving_results(const ServingBench& bench);

}  // namespace minke::bench
