#include "parallel/ema_piece.h"

#include <bit>
#include <cmath>

#include "base/files.h"
#include "base/random.h"

namespace minke {
namespace {

void average(View1<const float> w, float rate, View1<float> ema) {
  for (Index i = 0; i < w.size(); ++i) ema(i) += rate * (w(i) - ema(i));
}

// `first`: of the random numbers, one an element.
void average(View1<const float> w, float rate, std::uint64_t first, View1<BF16> ema) {
  for (Index i = 0; i < w.size(); ++i) {
    const auto old = static_cast<float>(ema(i));
    ema(i) =
        round_by_chance(old + rate * (w(i) - old), mix_bits(first + static_cast<std::uint64_t>(i)));
  }
}

}  // namespace

BF16 round_by_chance(float x, std::uint64_t random) {
  const auto bits = std::bit_cast<std::uint32_t>(x) + static_cast<std::uint32_t>(random & 0xFFFF);
  return BF16(std::bit_cast<float>(bits & 0xFFFF0000u));
}

void average_into(const EmaUpdate& update, const std::string& name, Index begin,
                  View1<const float> w, const TensorPart& ema) {
  const auto rate = static_cast<float>((1 - update.decay) /
                                       (1 - std::pow(update.decay, static_cast<double>(update.n))));
  if (ema.tensor->dtype() == DType::F32) return average(w, rate, ema.view<float>(w.size()));
  const std::uint64_t stream =
      mix_bits(hash64(as_byte_span(name)) + static_cast<std::uint64_t>(update.n));
  average(w, rate, stream + static_cast<std::uint64_t>(begin), ema.view<BF16>(w.size()));
}

}  // namespace minke
