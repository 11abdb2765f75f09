// Load balance without an auxiliary loss (the report, 2.1.2): after each step the bias of a routed
// expert moves by gamma, up when it got less than the mean load of its layer over the whole batch,
// down when it got more. Loads are integers and are compared as integers: an expert exactly at the
// mean keeps its bias.
//   b_e += gamma sign(sum_j load_j - E load_e)
#pragma once
#include <cstdint>
#include <span>

#include "tensor/view.h"

namespace minke {

// load, bias [E]. ShapeError when the extents do not agree.
void update_bias(double gamma, std::span<const std::int64_t> load, View1<float> bias);
void update_bias(double gamma, std::span<const std::int64_t> load, View1<double> bias);

// The largest load over the mean; 1 when balanced, 0 without any load.
double worst_load_ratio(std::span<const std::int64_t> load);

}  // namespace minke
