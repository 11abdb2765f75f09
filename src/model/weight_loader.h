// One weight of a checkpoint in the form that products read.
#pragma once
#include "io/tensor_store.h"
#include "model/checkpoint.h"

namespace minke {

std::string mtp_prefix(const ModelConfig& config, Index k);  // "model.layers.N."
// MTP modules whose tensors are in the store, counted from the first. One that begins but is not
// whole fails later, when its missing tensor is asked for.
Index count_mtp(const TensorStore& store, const ModelConfig& config);
// With as many MTP modules as the store holds; a warning when they are fewer than announced.
ModelConfig config_as_present(const TensorStore& store, ModelConfig config);

// How a tensor is stored.
enum class Stored : std::uint8_t { Real, Bf16, Fp8, Int4 };
// FormatError unless its name, type and extents are what the configuration says.
Stored stored_as(const TensorStore& store, const ParameterSpec& spec);

struct Fp8Matrix {
  Tensor codes, scales;
};
// x [N, K] in blocks of 128x128, as published.
Fp8Matrix quantize_fp8(const Tensor& x);

class WeightLoader {
 public:
  // All must outlive it.
  WeightLoader(const TensorStore& store, const ModelConfig& config, const LoadOptions& options)
      : store_(store), config_(config), options_(options) {}

  // Dequantised, quantised and packed as options.compute wants it. FormatError names the tensor.
  void load(const ParameterSpec& spec, Weight& w) const;
  // The form in which load() packs a matrix, and the groups of form Int4.
  PackedShape packed_shape(const ParameterSpec& spec) const;
  // Of the heads of kv_b_proj.
  WeightForm head_form() const;

 private:
  void load_linear(const ParameterSpec& spec, Stored stored, Weight& w) const;
  PackedWeights packed(const ParameterSpec& spec, Stored stored) const;
  WeightForm form_of(const ParameterSpec& spec, Stored stored) const;

  const TensorStore& store_;
  const ModelConfig& config_;
  const LoadOptions& options_;
};

// kv_b_proj is read by both forms of attention, in orders of their own.
bool is_kv_b(const ParameterSpec& spec);

// Of what `options` want of a model.
template <class Leaf, class F>
void visit_wanted(const ModelConfig& config, const LoadOptions& options, ModelParameters<Leaf>& p,
                  F&& f) {
  if (options.experts_alone)
    visit_routed_experts(config, p, f);
  else
    visit_parameters(config, p, f);
}

}  // namespace minke
