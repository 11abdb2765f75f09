#include "model/weight_bytes.h"

namespace minke {
namespace {

struct Nothing {};

double packed_bytes(const ParameterSpec& spec, LinearStorage storage, Compute compute) {
  const double n = static_cast<double>(element_count(spec.shape));
  if (spec.role == Role::Router || spec.role == Role::Norm || spec.role == Role::Bias) return 4 * n;
  const bool e4m3 =
      compute == Compute::Fp8 || (compute == Compute::Bf16 && storage == LinearStorage::E4m3);
  const bool int4 = storage == LinearStorage::Int4 || storage == LinearStorage::Int4Wide;
  if (spec.role == Role::Linear && int4 && compute == Compute::Bf16 &&
      !spec.name.ends_with("kv_b_proj.weight")) {
    const Index group = storage == LinearStorage::Int4 ? 32 : 128;
    const Index groups = (spec.shape[1] + group - 1) / group;
    return n / 2 + 2 * static_cast<double>(spec.shape[0] * groups);
  }
  if (spec.role == Role::Linear && e4m3) {
    const auto blocks = [](Index extent) { return static_cast<double>((extent + 127) / 128); };
    return n + 4 * blocks(spec.shape[0]) * blocks(spec.shape[1]);
  }
  return n * (compute == Compute::Bf16 ? 2 : 4);
}

}  // namespace

LinearStorage storage_of(const ModelConfig& c) {
  if (c.int4) return c.int4->group == 32 ? LinearStorage::Int4 : LinearStorage::Int4Wide;
  return c.quantization ? LinearStorage::E4m3 : LinearStorage::Plain;
}

std::string_view name_of(LinearStorage storage) {
  return storage == LinearStorage::Plain  ? "BF16"
         : storage == LinearStorage::E4m3 ? "FP8"
                                          : "4-bit";
}

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
