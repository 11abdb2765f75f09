#include "train/balance.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace minke {
namespace {

template <class Real>
void move_bias(double gamma, std::span<const std::int64_t> load, View1<Real> bias) {
  const auto E = static_cast<Index>(load.size());
  if (bias.size() != E)
    throw ShapeError(fmt::format("update_bias: {} loads for {} biases", E, bias.size()));
  const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
  for (Index e = 0; e < E; ++e) {
    const std::int64_t lacking = total - E * load[static_cast<std::size_t>(e)];
    const int sign = (lacking > 0) - (lacking < 0);
    if (sign != 0) bias(e) = static_cast<Real>(static_cast<double>(bias(e)) + sign * gamma);
  }
}

}  // namespace

void update_bias(double gamma, std::span<const std::int64_t> load, View1<float> bias) {
  move_bias(gamma, load, bias);
}
void update_bias(double gamma, std::span<const std::int64_t> load, View1<double> bias) {
  move_bias(gamma, load, bias);
}

double worst_load_ratio(std::span<const std::int64_t> load) {
  const std::int64_t total = std::accumulate(load.begin(), load.end(), std::int64_t{0});
  if (total == 0) return 0;
  return static_cast<double>(*std::max_element(load.begin(), load.end())) *
         static_cast<double>(load.size()) / static_cast<double>(total);
}

}  // namespace minke
