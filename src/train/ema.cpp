#include "train/ema.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/files.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/permute.h"

namespace minke {
namespace {

constexpr Index kPiece = 32768;  // elements that a thread takes at a time

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

View2<const BF16> as_row(const Tensor& t) {
  return reshape<2>(t.flat<BF16>(), {1, t.size()});
}

}  // namespace

BF16 round_by_chance(float x, std::uint64_t random) {
  const auto bits = std::bit_cast<std::uint32_t>(x) + static_cast<std::uint32_t>(random & 0xFFFF);
  return BF16(std::bit_cast<float>(bits & 0xFFFF0000u));
}

Ema begin_ema(const ModelConfig& config, double decay, DType matrices) {
  Ema ema{.weights = {}, .decay = decay};
  visit_parameters(config, ema.weights, [&](const ParameterSpec& spec, Tensor& t) {
    t = Tensor(spec.shape.size() == 1 ? DType::F32 : matrices, spec.shape);
  });
  return ema;
}

void update_ema(const ModelConfig& config, ModelParameters<Tensor>& masters, std::int64_t n,
                Ema& ema) {
  const auto from = list_parameters(config, masters);
  const auto to = list_parameters(config, ema.weights);
  const auto rate =
      static_cast<float>((1 - ema.decay) / (1 - std::pow(ema.decay, static_cast<double>(n))));
  for (std::size_t t = 0; t < to.size(); ++t) {
    const View1<const float> w = std::as_const(*from[t].leaf).flat();
    Tensor& average_of = *to[t].leaf;
    const std::uint64_t stream =
        mix_bits(hash64(as_byte_span(to[t].spec.name)) + static_cast<std::uint64_t>(n));
    parallel_ranges(w.size(), kPiece, [&](Index begin, Index end) {
      const View1<const float> part = w.slice(0, begin, end - begin);
      if (average_of.dtype() == DType::F32)
        average(part, rate, average_of.flat().slice(0, begin, end - begin));
      else
        average(part, rate, stream + static_cast<std::uint64_t>(begin),
                average_of.flat<BF16>().slice(0, begin, end - begin));
    });
  }
}

ModelParameters<Tensor>& ema_in_fp32(const ModelConfig& config, Ema& ema,
                                     ModelParameters<Tensor>& wide) {
  if (ema.weights.lm_head.dtype() == DType::F32) return ema.weights;
  wide = zero_parameters(config);
  const auto from = list_parameters(config, ema.weights), to = list_parameters(config, wide);
  for (std::size_t i = 0; i < from.size(); ++i)
    if (from[i].leaf->dtype() == DType::F32)
      *to[i].leaf = from[i].leaf->clone();
    else
      copy(as_row(*from[i].leaf), reshape<2>(to[i].leaf->flat(), {1, to[i].leaf->size()}));
  return wide;
}

}  // namespace minke
