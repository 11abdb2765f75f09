#include "bench/step_bytes.h"

#include <set>

namespace minke::bench {
namespace {

double bytes_of(const Weight& w) {
  const auto of = [](const PackedWeights& p) {
    return p.defined() ? static_cast<double>(p.bytes()) : 0;
  };
  double bytes = w.dense.defined() ? static_cast<double>(w.dense.bytes()) : 0;
  if (w.head_keys.empty()) return bytes + of(w.forward);
  for (const PackedWeights& p : w.head_keys) bytes += of(p);
  for (const PackedWeights& p : w.head_values) bytes += of(p);
  return bytes;
}

double bytes_of(const MlaWeights& w) {
  return bytes_of(w.q_proj) + bytes_of(w.q_a_proj) + bytes_of(w.q_a_layernorm) +
         bytes_of(w.q_b_proj) + bytes_of(w.kv_a_proj_with_mqa) + bytes_of(w.kv_a_layernorm) +
         bytes_of(w.kv_b_proj) + bytes_of(w.o_proj);
}

double bytes_of(const FfnWeights& w) {
  return bytes_of(w.gate_proj) + bytes_of(w.up_proj) + bytes_of(w.down_proj);
}

}  // namespace

MoeBytes moe_bytes(const MoeWeights& w, const Tensor& indices) {
  const View1<const std::int32_t> choices = indices.flat<std::int32_t>();
  std::set<std::int32_t> experts;
  for (Index i = 0; i < choices.size(); ++i) experts.insert(choices(i));
  MoeBytes bytes;
  bytes.weights =
      bytes_of(w.gate) + bytes_of(w.e_score_correction_bias) + bytes_of(w.shared_experts);
  for (const std::int32_t e : experts)
    bytes.weights += bytes_of(w.experts[static_cast<std::size_t>(e)]);
  bytes.experts = static_cast<Index>(experts.size());
  return bytes;
}

StepBytes step_bytes(const Model& model, std::span<const LatentCache* const> caches,
                     const Trace& trace) {
  const ModelConfig& c = model.config;
  const Tensor& embedding = model.weights.embed_tokens.dense;
  StepBytes bytes;
  bytes.weights = bytes_of(model.weights.norm) + bytes_of(model.weights.lm_head) +
                  static_cast<double>(caches.size() * embedding.bytes()) /
                      static_cast<double>(embedding.extent(0));
  for (const BlockWeights& block : model.weights.layers) {
    bytes.weights += bytes_of(block.input_layernorm) + bytes_of(block.self_attn) +
                     bytes_of(block.post_attention_layernorm);
    if (!block.is_moe) bytes.weights += bytes_of(block.mlp);
  }
  for (const GateTrace& gate : trace.gates) {
    const MoeWeights& moe = model.weights.layers[static_cast<std::size_t>(gate.layer)].moe;
    const MoeBytes of_layer = moe_bytes(moe, gate.indices);
    bytes.weights += of_layer.weights;
    bytes.experts += of_layer.experts;
  }
  for (const LatentCache* cache : caches)
    for (Index layer = 0; layer < c.num_hidden_layers; ++layer)
      bytes.cache +=
          static_cast<double>(cache->length(layer)) * static_cast<double>(cache->row().bytes());
  return bytes;
}

}  // namespace minke::bench
