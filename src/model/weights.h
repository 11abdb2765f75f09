// Weights in the form that a forward and a backward pass read: packed for products, FP32 otherwise.
//
// The layers of the training pass are templates over Real, the type of all numbers between, before
// and after products: float, or double for comparisons (`minke step`), where nothing is packed and
// nothing is rounded. Inference is float. Names without a type (Model, MlaWeights) are of float.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "model/dispatch.h"
#include "model/layer_ranks.h"
#include "model/parameters.h"
#include "ops/linear.h"

namespace minke {

// The arithmetic of products with weights; everything between them is FP32 but in Fp64.
//   Fp64   everything in double: ModelOf<double>, of training passes alone
//   Fp32   weights dequantised to FP32
//   Bf16   weights in BF16 (FP8 ones stay FP8 in memory), inputs rounded to BF16
//   Fp8    weights and inputs of FP8 linears quantised. Inference: the official kernel, the others
//          FP32. Training: output gradients as well (model/operand.h), the others as in Bf16
enum class Compute : std::uint8_t { Fp64, Fp32, Bf16, Fp8 };
Compute parse_compute(std::string_view name);  // "fp64", "fp32", "bf16", "fp8"
std::string_view name_of(Compute compute);

// What B computes again instead of keeping it (the report, 3.2.3). Results have the same bits.
struct Recompute {
  bool rmsnorm = false;  // outputs of all norms
  bool mla_up = false;   // queries, keys and values
  bool swiglu = true;    // the product of both branches
};

// How training computes, beside Compute.
struct TrainingForm {
  ScaleForm fp8_scales = ScaleForm::PowerOfTwo;  // compute fp8
  bool fp8_statistics = true;                    // count what quantising does
  Recompute recompute;
};

template <class Real>
struct WeightOf;

template <>
struct WeightOf<float> {
  Tensor dense;              // norms and biases (FP32), the embedding (FP32, or BF16 as on disk)
  PackedWeights forward;     // y = x W^T
  PackedWeights transposed;  // dx = dy W; in training only
  bool fp8_product = false;  // quantise x as well
  // kv_b_proj only, a head each, for the absorbed form: W_UK^T (N -> C) and W_UV (C -> V).
  std::vector<PackedWeights> head_keys, head_values;

  Index n_outputs() const { return forward.n(); }
  View1<const float> vector() const { return dense.v1(); }
  View2<const float> table() const { return dense.v2(); }
};
template <>
struct WeightOf<double> {
  Tensor dense;  // every tensor, as the master has it

  Index n_outputs() const { return dense.extent(0); }
  View1<const double> vector() const { return dense.v1<double>(); }
  View2<const double> table() const { return dense.v2<double>(); }
};

template <class Real>
using MlaWeightsOf = MlaParameters<WeightOf<Real>>;
template <class Real>
using FfnWeightsOf = FfnParameters<WeightOf<Real>>;
template <class Real>
using MoeWeightsOf = MoeParameters<WeightOf<Real>>;
template <class Real>
using BlockWeightsOf = BlockParameters<WeightOf<Real>>;
template <class Real>
using MtpWeightsOf = MtpParameters<WeightOf<Real>>;
template <class Real>
using ModelWeightsOf = ModelParameters<WeightOf<Real>>;

using Weight = WeightOf<float>;
using MlaWeights = MlaWeightsOf<float>;
using FfnWeights = FfnWeightsOf<float>;
using MoeWeights = MoeWeightsOf<float>;
using BlockWeights = BlockWeightsOf<float>;
using MtpWeights = MtpWeightsOf<float>;
using ModelWeights = ModelWeightsOf<float>;

using MlaGradients = MlaParameters<Tensor>;
using FfnGradients = FfnParameters<Tensor>;
using MoeGradients = MoeParameters<Tensor>;
using BlockGradients = BlockParameters<Tensor>;
using MtpGradients = MtpParameters<Tensor>;
using ModelGradients = ModelParameters<Tensor>;

// A model ready for use: configuration, weights, and how products are computed.
template <class Real>
struct ModelOf {
  ModelConfig config;
  Compute compute = std::is_same_v<Real, double> ? Compute::Fp64 : Compute::Fp32;
  ModelWeightsOf<Real> weights;
  std::vector<Real> inv_freq;  // [R / 2]
  double softmax_scale = 0;
  double rotation_mscale = 1;
  Recompute recompute;                    // in training
  bool narrow_operands = false;           // training in BF16: what only linears read is in BF16
  std::optional<ScaleForm> fp8;           // FP8 training: the scales of linears
  std::vector<Fp8Counts> fp8_weights;     // of the linears of each layer, MTP modules after the
                                          // others; empty without statistics
  DispatchFactory make_dispatch = {};     // to experts on several ranks; none: all are here
  LayerRanks* layer_ranks = nullptr;      // layers on other ranks; none: all are here
  std::optional<DType> cache_dtype = {};  // of latent caches (ops/latent_rows.h); none: by compute
  std::shared_ptr<const void> mapped = {};  // keeps the files there in which weights are used
  Precision precision() const {
    return compute == Compute::Bf16 || compute == Compute::Fp8 ? Precision::Bf16 : Precision::Full;
  }
};
using Model = ModelOf<float>;

// y = x W^T in the arithmetic that the weight was packed for.
void apply(const Weight& w, View2<const float> x, View2<float> y, Write write = Write::Overwrite);
void apply(const WeightOf<double>& w, View2<const double> x, View2<double> y,
           Write write = Write::Overwrite);
// dx = dy W.
void apply_transposed(const Weight& w, View2<const float> dy, View2<float> dx,
                      Write write = Write::Overwrite);
void apply_transposed(const WeightOf<double>& w, View2<const double> dy, View2<double> dx,
                      Write write = Write::Overwrite);

// Both for rows [offsets[e], offsets[e + 1]) and w[e], all experts in one call.
void apply_grouped(std::span<const Weight* const> w, View2<const float> x,
                   std::span<const Index> offsets, View2<float> y);
void apply_grouped(std::span<const WeightOf<double>* const> w, View2<const double> x,
                   std::span<const Index> offsets, View2<double> y);
void apply_transposed_grouped(std::span<const Weight* const> w, View2<const float> dy,
                              std::span<const Index> offsets, View2<float> dx,
                              Write write = Write::Overwrite);
void apply_transposed_grouped(std::span<const WeightOf<double>* const> w, View2<const double> dy,
                              std::span<const Index> offsets, View2<double> dx,
                              Write write = Write::Overwrite);

// From FP32 master weights for training: packed forward and transposed, in Fp32 or Bf16. In Fp8 the
// published FP8 weights (role Linear) are quantised in 128x128 blocks: power-of-two scales leave
// them exact in form Bf16, FP32 scales pack their codes (E4m3). ConfigError for Fp8 without
// recompute.swiglu: it keeps SwiGLU's inputs rounded, so that only B can compute its output again.
Model make_training_model(const ModelConfig& config, ModelParameters<Tensor>& masters,
                          Compute compute, const TrainingForm& form = {});
// From masters in double.
ModelOf<double> make_double_model(const ModelConfig& config, ModelParameters<Tensor>& masters);
// Takes the masters again after an optimiser step, into the memory that is there.
void refresh(Model& model, ModelParameters<Tensor>& masters);
void refresh(ModelOf<double>& model, ModelParameters<Tensor>& masters);

// Sets what follows from the configuration: inv_freq, softmax_scale, rotation_mscale.
template <class Real>
void set_position_constants(ModelOf<Real>& model);
// The per-head packs of kv_b_proj from its FP32 form [H (N+V), C].
void pack_absorbed(const ModelConfig& config, View2<const float> kv_b_proj, WeightForm form,
                   Weight& w);

}  // namespace minke
