// Attention alone, in the shapes of the benchmark models: expanded forward and backward, and the
// absorbed form of decoding over the latent cache.
#pragma once
#include <vector>

#include "bench/result.h"

namespace minke::bench {

struct AttentionBench {
  int rounds = 5;
  Index smaller = 1;  // divides lengths of sequences and contexts
};

// Arithmetic is FP32, and so is its limit. Decoding is compared with that or with the read
// bandwidth, whichever asks for more time here.
std::vector<Result> attention_results(const AttentionBench& bench);

}  // namespace minke::bench
