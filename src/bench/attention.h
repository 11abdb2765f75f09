// Attention alone, in the shapes of the benchmark models: expanded forward and backward, and the
// absorbed form of decoding over the latent cache.
#pragma once
#include <string>
#include <vector>

#include "bench/result.h"

namespace minke::bench {

struct AttentionBench {
  int rounds = 5;
  Index smaller = 1;          // divides lengths of sequences and contexts
  std::string cache = "fp8";  // rows of the latent cache that are compared with BF16: fp8, fp32, or
                              // bf16 for no comparison
};

// Arithmetic is FP32, and so is its limit. Decoding is compared with that or with the read
// bandwidth, whichever asks for more time here; over
// rows in another form than BF16 it is compared with that over rows in BF16, measured in turn.
std::vector<Result> attention_results(const AttentionBench& bench);

}  // namespace minke::bench
