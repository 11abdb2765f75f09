// Training steps of a benchmark model on random tokens, against the limit of the products.
#pragma once
#include <string>
#include <vector>

#include "bench/result.h"

namespace minke::bench {

struct TrainBench {
  std::string model = "mini";
  Index batch = 8, sequence = 512;
  std::string compute = "bf16";
  std::string fp8_scales = "power_of_two";  // or "float"
  int rounds = 9;
};

// The whole step, its gradients and its update (clipping, AdamW, weights packed again).
std::vector<Result> train_results(const TrainBench& bench);

}  // namespace minke::bench
