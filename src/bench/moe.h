// One MoE layer of a benchmark model (gate, routed experts, shared experts) for few and many
// tokens.
#pragma once
#include <string>
#include <vector>

#include "bench/bench_model.h"
#include "bench/result.h"

namespace minke::bench {

struct MoeBench {
  ModelChoice choice = {};
  std::vector<std::int64_t> tokens = {1, 8, 64, 512};
  Index mib = 256;  // of weights that a measurement of few tokens touches, in several calls
  int rounds = 5;
};

// "moe MODEL" for each number of tokens, against the read bandwidth (the weights of the experts
// that were chosen, each once) or the limit of the products, whichever asks for more time here.
// UsageError for a directory: the layer has random weights.
std::vector<Result> moe_results(const MoeBench& bench);

}  // namespace minke::bench
