#include "model/weight_bytes.h"

namespace minke {
namespace {

struct Nothing {};

double packed_bytes(const ParameterSpec& spec, LinearStorage storage, Compute compute) {
  const double n = static_cast<double>(element_count(spec.shape));
  if (spec.role == Role::Router || spec.role == Role::Norm || spec.role == Role::Bias) return 4 * n;
  const bool e4m3 =
      compute == Compute::Fp8 || (compute == Compute::Bf16 && storage == LinearStorage::E4m3);
  if (spec.role == Role::Linear && e4m3) {
    const auto blocks = [](Index extent) { return static_cast<double>((extent + 127) / 128); };
    return n + 4 * blocks(spec.shape[0]) * blocks(spec.shape[1]);
  }
  return n * (compute == Compute::Bf16 ? 2 : 4);
}

}  // namespace

WeightBytes weight_bytes(const ModelConfig& c, LinearStorage storage, Compute compute) {
  WeightBytes bytes;
  ModelConfig main = c;
  main.num_nextn_predict_layers = 0;
  const double absorbed = compute == Compute::Bf16 ? 2 : 4;  // of an element
  const auto add = [&](const ModelConfig& config, bool is_main) {
    ModelParameters<Nothing> unused;
    visit_parameters(config, unused, [&](const ParameterSpec& spec, Nothing&) {
      const double packed = packed_bytes(spec, storage, compute);
      const bool kv_b = spec.name.ends_with("kv_b_proj.weight");
      const double heads = kv_b ? absorbed * static_cast<double>(element_count(spec.shape)) : 0;
      if (!is_main) {
        bytes.held += packed + heads;
      } else if (spec.role == Role::Embedding) {
        bytes.per_token += packed / static_cast<double>(c.vocab_size);
      } else if (spec.name.find(".experts.") != std::string::npos) {
        bytes.per_token += packed * static_cast<double>(c.num_experts_per_tok) /
                           static_cast<double>(c.n_routed_experts);
      } else {
        bytes.per_token += kv_b ? heads : packed;
      }
    });
  };
  add(c, false);
  add(main, true);
  return bytes;
}

}  // namespace minke
