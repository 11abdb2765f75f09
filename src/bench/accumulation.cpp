#include "bench/accumulation.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "base/threads.h"
#include "ops/fp8_tiles.h"
#include "ops/tensor_core_sum.h"

namespace minke::bench {
namespace {

// [rows, k] of E4M3 values without their scales: these multiply sums and change no relative error
// where, as here, all rows are alike.
Tensor random_codes(Elements elements, Index rows, Index k, std::uint64_t stream) {
  Tensor x = Tensor::uninitialized({rows, k});
  Random random(1, stream);
  for (Index i = 0; i < x.size(); ++i)
    x.flat()(i) =
        static_cast<float>(elements == Elements::Normal ? random.normal() : random.uniform());
  // One scale for all: the accumulation alone is looked at.
  const float scale = fp8_tile_scale(8.0f, ScaleForm::PowerOfTwo);
  for (Index i = 0; i < x.size(); ++i) x.flat()(i) = reference::fp8_code(x.flat()(i), scale);
  return x;
}

struct Sums {
  double exact, fp32, limited, promoted;
};

Sums sums_of(View1<const float> a, View1<const float> b, const AccumulationBench& bench) {
  Sums s{};
  float sum = 0;
  for (Index i = 0; i < a.extent(0); ++i) {
    s.exact += static_cast<double>(a(i)) * static_cast<double>(b(i));
    sum += a(i) * b(i);
  }
  s.fp32 = sum;
  s.limited = tensor_core_dot(a, b, {.bits = bench.bits});
  s.promoted = tensor_core_dot(a, b, {.bits = bench.bits, .promote_every = bench.promote_every});
  return s;
}

AccumulationError error_at(Elements elements, Index k, const AccumulationBench& bench) {
  const Index n = bench.side;
  const Tensor a = random_codes(elements, n, k, 2 * static_cast<std::uint64_t>(k));
  const Tensor b = random_codes(elements, n, k, 2 * static_cast<std::uint64_t>(k) + 1);
  std::vector<Sums> all(static_cast<std::size_t>(n * n));
  parallel_for(n * n, [&](Index i) {
    all[static_cast<std::size_t>(i)] = sums_of(a.v2()[i / n], b.v2()[i % n], bench);
  });
  AccumulationError worst{elements, k, 0, 0, 0};
  double squares = 0;
  for (const Sums& s : all) {
    squares += s.exact * s.exact;
    worst.fp32 = std::max(worst.fp32, std::fabs(s.fp32 - s.exact));
    worst.limited = std::max(worst.limited, std::fabs(s.limited - s.exact));
    worst.promoted = std::max(worst.promoted, std::fabs(s.promoted - s.exact));
  }
  const double size = std::sqrt(squares / static_cast<double>(n * n));
  worst.fp32 /= size, worst.limited /= size, worst.promoted /= size;
  return worst;
}

}  // namespace

std::vector<AccumulationError> accumulation_errors(const AccumulationBench& bench) {
  std::vector<AccumulationError> errors;
  for (const Elements elements : {Elements::Normal, Elements::Uniform})
    for (const Index k : bench.k) errors.push_back(error_at(elements, k, bench));
  return errors;
}

std::string name_of(Elements elements) {
  return elements == Elements::Normal ? "normal" : "uniform";
}

}  // namespace minke::bench
