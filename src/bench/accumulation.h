// What an accumulator of about 14 bits does to sums over K, and what promotion to FP32 every 128
// elements does about it (the report, 3.3.2: a relative error of nearly 2 % at K = 4096), by the
// model of ops/tensor_core_sum.h. No measurement of time.
#pragma once
#include <string>
#include <vector>

#include "tensor/view.h"

namespace minke::bench {

// Elements of both matrices, before they are quantised to E4M3 by rows of 1x128 tiles.
enum class Elements { Normal, Uniform };  // of mean 0 and deviation 1; between 0 and 1

struct AccumulationBench {
  std::vector<Index> k = {128, 512, 1024, 2048, 4096, 8192, 16384};
  Index side = 32;  // of the product [side, side] that is looked at
  Index promote_every = 128;
  int bits = 14;
};

// Largest |error| of the elements of a product, relative to the root mean square of the exact ones.
struct AccumulationError {
  Elements elements;
  Index k;
  double fp32, limited, promoted;
};
std::vector<AccumulationError> accumulation_errors(const AccumulationBench& bench);
std::string name_of(Elements elements);

}  // namespace minke::bench
