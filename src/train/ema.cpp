#include "train/ema.h"

#include "base/threads.h"
#include "ops/permute.h"

namespace minke {
namespace {

View2<const BF16> as_row(const Tensor& t) {
  return reshape<2>(t.flat<BF16>(), {1, t.size()});
}

}  // namespace

Ema begin_ema(const ModelConfig& config, double decay, DType matrices) {
  Ema ema{.weights = {}, .decay = decay, .matrices = matrices};
  visit_parameters(config, ema.weights, [&](const ParameterSpec& spec, Tensor& t) {
    t = Tensor(spec.shape.size() == 1 ? DType::F32 : matrices, spec.shape);
  });
  return ema;
}

void update_ema(const ModelConfig& config, ModelParameters<Tensor>& masters, std::int64_t n,
                Ema& ema) {
  const auto from = list_parameters(config, masters);
  const auto to = list_parameters(config, ema.weights);
  for (std::size_t t = 0; t < to.size(); ++t) {
    const View1<const float> w = std::as_const(*from[t].leaf).flat();
    Tensor& average_of = *to[t].leaf;
    if (!average_of.defined()) continue;
    parallel_ranges(w.size(), kPiece, [&](Index begin, Index end) {
      average_into({.decay = ema.decay, .n = n}, to[t].spec.name, begin,
                   w.slice(0, begin, end - begin), {&average_of, begin});
    });
  }
}

Tensor in_fp32(const Tensor& average) {
  Tensor wide = Tensor::uninitialized(average.shape());
  copy(as_row(average), reshape<2>(wide.flat(), {1, wide.size()}));
  return wide;
}

ModelParameters<Tensor>& ema_in_fp32(const ModelConfig& config, Ema& ema,
                                     ModelParameters<Tensor>& wide) {
  if (ema.matrices == DType::F32) return ema.weights;
  const auto from = list_parameters(config, ema.weights), to = list_parameters(config, wide);
  for (std::size_t i = 0; i < from.size(); ++i)
    *to[i].leaf =
        from[i].leaf->dtype() == DType::F32 ? from[i].leaf->clone() : in_fp32(*from[i].leaf);
  return wide;
}

}  // namespace minke
