// Weights in the form that a forward and a backward pass read: packed for products, FP32 otherwise.
#pragma once
#include <vector>

#include "model/parameters.h"
#include "ops/linear.h"

namespace minke {

// The arithmetic of products with weights; everything between them is FP32.
//   Fp32   weights dequantised to FP32
//   Bf16   weights in BF16 (FP8 ones stay FP8 in memory), inputs rounded to BF16
//   Fp8    weights and inputs of FP8 linears quantised (the official kernel); the others FP32
enum class Compute : std::uint8_t { Fp32, Bf16, Fp8 };
Compute parse_compute(std::string_view name);  // "fp32", "bf16", "fp8"
std::string_view name_of(Compute compute);

struct Weight {
  Tensor dense;              // norms and biases (FP32), the embedding (FP32, or BF16 as on disk)
  PackedWeights forward;     // y = x W^T
  PackedWeights transposed;  // dx = dy W; in training only
  bool fp8_product = false;  // quantise x as well
  // kv_b_proj only, a head each, for the absorbed form: W_UK^T (N -> C) and W_UV (C -> V).
  std::vector<PackedWeights> head_keys, head_values;
};
using MlaWeights = MlaParameters<Weight>;
using FfnWeights = FfnParameters<Weight>;
using MoeWeights = MoeParameters<Weight>;
using BlockWeights = BlockParameters<Weight>;
using MtpWeights = MtpParameters<Weight>;
using ModelWeights = ModelParameters<Weight>;

using MlaGradients = MlaParameters<Tensor>;
using FfnGradients = FfnParameters<Tensor>;
using MoeGradients = MoeParameters<Tensor>;
using BlockGradients = BlockParameters<Tensor>;
using MtpGradients = MtpParameters<Tensor>;
using ModelGradients = ModelParameters<Tensor>;

// A model ready for use: configuration, weights, and how products are computed.
struct Model {
  ModelConfig config;
  Compute compute = Compute::Fp32;
  ModelWeights weights;
  std::vector<float> inv_freq;  // [R / 2]
  float softmax_scale = 0;
  double rotation_mscale = 1;
  Precision precision() const {
    return compute == Compute::Fp32 ? Precision::Full : Precision::Bf16;
  }
};

// y = x W^T in the arithmetic that the weight was packed for.
void apply(const Weight& w, View2<const float> x, View2<float> y, Write write = Write::Overwrite);
// dx = dy W.
void apply_transposed(const Weight& w, View2<const float> dy, View2<float> dx,
                      Write write = Write::Overwrite);

// Packs master weights for training: forward and transposed, in Fp32 or Bf16.
Model make_training_model(const ModelConfig& config, ModelParameters<Tensor>& masters,
                          Compute compute);
// Packs again after an optimiser step, into the memory that is there.
void refresh(Model& model, ModelParameters<Tensor>& masters);

// Sets what follows from the configuration: inv_freq, softmax_scale, rotation_mscale.
void set_position_constants(Model& model);
// The per-head packs of kv_b_proj from its FP32 form [H (N+V), C].
void pack_absorbed(const ModelConfig& config, View2<const float> kv_b_proj, WeightForm form,
                   Weight& w);

}  // namespace minke
