// Matrix products against what this machine can do: large ones, one row with weights from memory,
// and the products of training (experts, weight gradients, packing).
#pragma once
#include <vector>

#include "bench/result.h"

namespace minke::bench {

struct GemmBench {
  int rounds = 9;
  Index smaller = 1;  // divides the number of rows and the bytes read: for a quick look
};

std::vector<Result> gemm_results(const GemmBench& bench);

}  // namespace minke::bench
