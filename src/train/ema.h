// Exponential moving average of the weights, kept beside the masters to estimate how good the model
// would be after a decay of the learning rate (the report, 3.2.3; its decay is not given). With
// weights w_1 .. w_n after n updates:
//   ema_n = (1 - d) / (1 - d^n) sum_i d^(n-i) w_i          so the initial weights do not count
//   ema  += rate (w_n - ema),   rate = (1 - d) / (1 - d^n)
// Every tensor is averaged, the router's biases included: a bias belongs to the weights of its
// time.
//
// In BF16 an update of a thousandth is below half a unit of the last place: rounded to nearest, the
// average would stand still. It is rounded up or down by chance, so that it is right on average;
// the chance is a function of tensor, element and update, so a resumed run draws the same.
#pragma once
#include <cstdint>

#include "model/parameters.h"
#include "parallel/ema_piece.h"

namespace minke {

struct Ema {
  ModelParameters<Tensor> weights;  // matrices F32 or BF16, vectors F32
  double decay = 0;
  DType matrices = DType::F32;
};

// Zeros, which the first update replaces. `matrices`: F32 or BF16.
Ema begin_ema(const ModelConfig& config, double decay, DType matrices);

// After update number `n`, from 1. The same bits on any number of threads. Averages that are not
// defined are somebody else's (parallel/zero1.h).
void update_ema(const ModelConfig& config, ModelParameters<Tensor>& masters, std::int64_t n,
                Ema& ema);

// A BF16 tensor of an average in FP32.
Tensor in_fp32(const Tensor& average);
// The average in FP32: itself, or a copy in `wide` when it is BF16.
ModelParameters<Tensor>& ema_in_fp32(const ModelConfig& config, Ema& ema,
                                     ModelParameters<Tensor>& wide);

}  // namespace minke
