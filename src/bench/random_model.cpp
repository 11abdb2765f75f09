#include "bench/random_model.h"

#include <cmath>
#include <cstring>

#include "base/files.h"
#include "base/random.h"
#include "base/threads.h"
#include "tensor/block_cache.h"
#include "tensor/int4_groups.h"

namespace minke::bench {
namespace {

// Drawing billions of normal numbers takes minutes: rows are pieces of one pool, from random
// places.
constexpr Index kPool = 1 << 18;
constexpr float kCodeScale = 1.0f / 64;  // codes of unit normals stay below E4M3's 448

std::vector<E4M3> draw_codes() {
  std::vector<E4M3> codes(static_cast<std::size_t>(kPool));
  parallel_ranges(kPool, 4096, [&](Index first, Index last) {
    Random random(1, static_cast<std::uint64_t>(first));
    for (Index i = first; i < last; ++i)
      codes[static_cast<std::size_t>(i)] = E4M3(static_cast<float>(random.normal()) / kCodeScale);
  });
  return codes;
}

class Maker {
 public:
  Maker(const ModelConfig& config, const RandomModel& options)
      : config_(config), options_(options), codes_(draw_codes()) {
    for (const E4M3 code : codes_) values_.push_back(static_cast<float>(code) * kCodeScale);
  }

  void make(const ParameterSpec& spec, Weight& w) {
    const bool bf16 = options_.compute == Compute::Bf16;
    switch (spec.role) {
      case Role::Norm:
      case Role::Bias:
        w.dense = Tensor::zeros(spec.shape);
        if (spec.role == Role::Norm)
          for (Index i = 0; i < w.dense.size(); ++i) w.dense.v1()(i) = 1;
        break;
      case Role::Embedding:
        w.dense = bf16 ? matrix<BF16>(spec, 1) : matrix<float>(spec, 1);
        break;
      case Role::Router:
        w.forward = packed(spec, WeightForm::F32);
        break;
      case Role::Head:
      case Role::EhProj:
        w.forward = packed(spec, bf16 ? WeightForm::Bf16 : WeightForm::F32);
        break;
      case Role::Linear:
        make_linear(spec, w);
        break;
    }
  }

 private:
  static float deviation(const ParameterSpec& spec) {
    return 1 / std::sqrt(static_cast<float>(spec.shape[1]));
  }

  void make_linear(const ParameterSpec& spec, Weight& w) {
    const bool kv_b = spec.name.ends_with("kv_b_proj.weight");
    if (!kv_b || options_.expanded) {
      const bool int4 = options_.linear == WeightForm::Int4;  // as convert: all but kv_b_proj
      w.forward = packed(spec, int4 && kv_b ? WeightForm::Bf16 : options_.linear);
      w.fp8_product = options_.compute == Compute::Fp8;
    }
    if (kv_b && options_.absorbed) {
      const Tensor dense = matrix<float>(spec, deviation(spec));
      const bool bf16 = options_.compute == Compute::Bf16;
      pack_absorbed(config_, dense.v2(), bf16 ? WeightForm::Bf16 : WeightForm::F32, w);
    }
  }

  PackedWeights packed(const ParameterSpec& spec, WeightForm form) const {
    const float sigma = deviation(spec);
    if (form == WeightForm::F32) {
      const Tensor t = matrix<float>(spec, sigma);
      return PackedWeights::pack(t.v2(), form);
    }
    if (form == WeightForm::Bf16) {
      const Tensor t = matrix<BF16>(spec, sigma);
      return PackedWeights::pack(t.view<BF16, 2>());
    }
    if (form == WeightForm::Int4) return packed_int4(spec, sigma);
    const Tensor codes = matrix<E4M3>(spec, sigma);
    Tensor scales =
        Tensor::uninitialized({(spec.shape[0] + 127) / 128, (spec.shape[1] + 127) / 128});
    for (Index i = 0; i < scales.size(); ++i) scales.flat()(i) = sigma * kCodeScale;
    return PackedWeights::pack(codes.view<E4M3, 2>(), std::as_const(scales).v2());
  }

  // Every code is as likely as any other: their variance is (16^2 - 1) / 12.
  PackedWeights packed_int4(const ParameterSpec& spec, float sigma) const {
    constexpr Index kGroup = 32;
    const Index n = spec.shape[0], k = spec.shape[1];
    Tensor codes = Tensor::uninitialized(DType::I32, {n, (k + kInt4PerWord - 1) / kInt4PerWord});
    Tensor scales = Tensor::uninitialized(DType::BF16, {n, (k + kGroup - 1) / kGroup});
    const BF16 scale(sigma / std::sqrt(255.0f / 12));
    const std::uint64_t stream = hash64(as_byte_span(spec.name));
    parallel_ranges(n, 64, [&](Index first, Index last) {
      Random random(3, stream + static_cast<std::uint64_t>(first));
      for (Index r = first; r < last; ++r) {
        for (Index i = 0; i < codes.extent(1); ++i)
          codes.view<std::int32_t, 2>()(r, i) = static_cast<std::int32_t>(random.next());
        for (Index g = 0; g < scales.extent(1); ++g) scales.view<BF16, 2>()(r, g) = scale;
      }
    });
    return PackedWeights::pack_int4(std::as_const(codes).view<std::int32_t, 2>(),
                                    std::as_const(scales).view<BF16, 2>(), k, kGroup);
  }

  // The same numbers in each type, times sigma (which codes leave to their scales).
  template <class T>
  Tensor matrix(const ParameterSpec& spec, float sigma) const {
    const Index rows = spec.shape[0], columns = spec.shape[1];
    Tensor t = Tensor::uninitialized<T>(spec.shape);
    auto* to = static_cast<T*>(t.raw());
    const std::uint64_t stream = hash64(as_byte_span(spec.name));
    parallel_ranges(rows, 64, [&](Index first, Index last) {
      Random random(2, stream + static_cast<std::uint64_t>(first));
      for (Index r = first; r < last; ++r) row(random, sigma, to + r * columns, columns);
    });
    return t;
  }
  template <class T>
  void row(Random& random, float sigma, T* to, Index n) const {
    for (Index done = 0; done < n;) {
      const Index at = static_cast<Index>(random.below(kPool));
      const Index count = std::min(kPool - at, n - done);
      for (Index i = 0; i < count; ++i) {
        const auto from = static_cast<std::size_t>(at + i);
        if constexpr (std::is_same_v<T, E4M3>)
          to[done + i] = codes_[from];
        else
          to[done + i] = T(values_[from] * sigma);
      }
      done += count;
    }
  }

  const ModelConfig& config_;
  const RandomModel& options_;
  std::vector<E4M3> codes_;
  std::vector<float> values_;  // of the codes
};

}  // namespace

Model random_model(ModelConfig config, const RandomModel& options) {
  if (!options.modules) config.num_nextn_predict_layers = 0;
  Model model;
  model.config = std::move(config);
  model.compute = options.compute;
  set_position_constants(model);
  Maker maker(model.config, options);
  visit_parameters(model.config, model.weights,
                   [&](const ParameterSpec& spec, Weight& w) { maker.make(spec, w); });
  release_kept_blocks();
  return model;
}

}  // namespace minke::bench
