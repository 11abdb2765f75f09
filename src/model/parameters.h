// The tensors of a model, listed once with their published names. Loading, saving, initialising,
// counting, zeroing, reducing and optimising all walk visit_parameters.
//
// Leaf is Tensor for master weights, gradients and moments, and Weight (model/weights.h) for the
// packed form that products read.
#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace minke {

enum class Role : std::uint8_t {
  Embedding,  // embed_tokens
  Head,       // lm_head
  Linear,     // FP8 in published checkpoints
  EhProj,     // the MTP modules' projection: never FP8
  Router,     // mlp.gate.weight: FP32 products
  Norm,
  Bias,  // e_score_correction_bias: no gradient
};

struct ParameterSpec {
  std::string name;
  Shape shape;
  Role role;
};

// Of a layer or an MTP module: what ranks that share experts (ModelConfig::held_experts) have parts
// of.
bool is_routed_expert(const ParameterSpec& spec);

template <class Leaf>
struct MlaParameters {
  Leaf q_proj;                   // [H (N+R), D], when q_lora_rank is null; else
  Leaf q_a_proj, q_a_layernorm;  // [Q, D], [Q]
  Leaf q_b_proj;                 // [H (N+R), Q]
  Leaf kv_a_proj_with_mqa;       // [C+R, D]
  Leaf kv_a_layernorm;           // [C]
  Leaf kv_b_proj;                // [H (N+V), C], per head N rows for keys, then V for values
  Leaf o_proj;                   // [D, H V]
};

template <class Leaf>
struct FfnParameters {
  Leaf gate_proj, up_proj;  // [F, D]
  Leaf down_proj;           // [D, F]
};

template <class Leaf>
struct MoeParameters {
  Index layer = 0;                           // as in the published names
  Leaf gate;                                 // [E, D]
  Leaf e_score_correction_bias;              // [E]
  std::vector<FfnParameters<Leaf>> experts;  // those held here, in order
  FfnParameters<Leaf> shared_experts;
};

template <class Leaf>
struct BlockParameters {
  Leaf input_layernorm;  // [D]
  MlaParameters<Leaf> self_attn;
  Leaf post_attention_layernorm;  // [D]
  bool is_moe = false;
  FfnParameters<Leaf> mlp;  // dense layers
  MoeParameters<Leaf> moe;  // the others
};

template <class Leaf>
struct MtpParameters {
  Leaf enorm, hnorm;  // [D]
  Leaf eh_proj;       // [D, 2 D], columns: embedding first
  BlockParameters<Leaf> block;
  Leaf shared_head_norm;  // [D]
};

template <class Leaf>
struct ModelParameters {
  Leaf embed_tokens;  // [vocabulary, D]
  std::vector<BlockParameters<Leaf>> layers;
  Leaf norm;     // [D]
  Leaf lm_head;  // [vocabulary, D]
  std::vector<MtpParameters<Leaf>> mtp;
};

// Of an MoE layer as numbered in the published names; those of modules follow the main ones.
// Parameters are a ModelParameters, const or not.
template <class Parameters>
auto& moe_of(const ModelConfig& c, Parameters& p, Index layer) {
  const Index L = c.num_hidden_layers;
  return layer < L ? p.layers[static_cast<std::size_t>(layer)].moe
                   : p.mtp[static_cast<std::size_t>(layer - L)].block.moe;
}

namespace detail {

template <class Leaf, class F>
void visit_ffn(const std::string& prefix, Index width, Index inner, FfnParameters<Leaf>& p, F& f) {
  f(ParameterSpec{prefix + "gate_proj.weight", {inner, width}, Role::Linear}, p.gate_proj);
  f(ParameterSpec{prefix + "up_proj.weight", {inner, width}, Role::Linear}, p.up_proj);
  f(ParameterSpec{prefix + "down_proj.weight", {width, inner}, Role::Linear}, p.down_proj);
}

template <class Leaf, class F>
void visit_mla(const ModelConfig& c, const std::string& prefix, MlaParameters<Leaf>& p, F& f) {
  const Index D = c.hidden_size, H = c.num_attention_heads, C = c.kv_lora_rank;
  const Index queries = H * c.qk_head_dim();
  if (c.q_lora_rank) {
    f(ParameterSpec{prefix + "q_a_proj.weight", {*c.q_lora_rank, D}, Role::Linear}, p.q_a_proj);
    f(ParameterSpec{prefix + "q_a_layernorm.weight", {*c.q_lora_rank}, Role::Norm},
      p.q_a_layernorm);
    f(ParameterSpec{prefix + "q_b_proj.weight", {queries, *c.q_lora_rank}, Role::Linear},
      p.q_b_proj);
  } else {
    f(ParameterSpec{prefix + "q_proj.weight", {queries, D}, Role::Linear}, p.q_proj);
  }
  f(ParameterSpec{prefix + "kv_a_proj_with_mqa.weight", {c.cache_row(), D}, Role::Linear},
    p.kv_a_proj_with_mqa);
  f(ParameterSpec{prefix + "kv_a_layernorm.weight", {C}, Role::Norm}, p.kv_a_layernorm);
  f(
      ParameterSpec{
          prefix + "kv_b_proj.weight", {H * (c.qk_nope_head_dim + c.v_head_dim), C}, Role::Linear},
      p.kv_b_proj);
  f(ParameterSpec{prefix + "o_proj.weight", {D, H * c.v_head_dim}, Role::Linear}, p.o_proj);
}

inline std::string layer_prefix(Index layer) {
  return fmt::format("model.layers.{}.", layer);
}

template <class Leaf, class F>
void visit_routed(const ModelConfig& c, Index layer, MoeParameters<Leaf>& p, F& f) {
  const ExpertRange held = c.local_experts();
  if (p.layer != layer) p.layer = layer;  // threads may walk a complete model at once
  p.experts.resize(static_cast<std::size_t>(held.size()));
  for (Index e = held.first; e < held.last; ++e)
    visit_ffn(fmt::format("{}mlp.experts.{}.", layer_prefix(layer), e), c.hidden_size,
              c.moe_intermediate_size, p.experts[static_cast<std::size_t>(e - held.first)], f);
}

template <class Leaf, class F>
void visit_moe(const ModelConfig& c, Index layer, MoeParameters<Leaf>& p, F& f) {
  const Index D = c.hidden_size, E = c.n_routed_experts;
  const std::string prefix = layer_prefix(layer) + "mlp.";
  f(ParameterSpec{prefix + "gate.weight", {E, D}, Role::Router}, p.gate);
  f(ParameterSpec{prefix + "gate.e_score_correction_bias", {E}, Role::Bias},
    p.e_score_correction_bias);
  visit_routed(c, layer, p, f);
  if (c.n_shared_experts > 0)
    visit_ffn(prefix + "shared_experts.", D, c.shared_width(), p.shared_experts, f);
}

template <class Leaf, class F>
void visit_block(const ModelConfig& c, Index layer, BlockParameters<Leaf>& p, F& f) {
  const Index D = c.hidden_size;
  const std::string prefix = layer_prefix(layer);
  const bool is_moe = c.is_moe(layer);
  if (p.is_moe != is_moe) p.is_moe = is_moe;
  f(ParameterSpec{prefix + "input_layernorm.weight", {D}, Role::Norm}, p.input_layernorm);
  visit_mla(c, prefix + "self_attn.", p.self_attn, f);
  f(ParameterSpec{prefix + "post_attention_layernorm.weight", {D}, Role::Norm},
    p.post_attention_layernorm);
  if (is_moe)
    visit_moe(c, layer, p.moe, f);
  else
    visit_ffn(prefix + "mlp.", D, c.intermediate_size, p.mlp, f);
}

template <class Leaf, class F>
void visit_mtp(const ModelConfig& c, Index k, MtpParameters<Leaf>& m, F& f) {
  const Index D = c.hidden_size, layer = c.num_hidden_layers + k;
  const std::string prefix = layer_prefix(layer);
  f(ParameterSpec{prefix + "enorm.weight", {D}, Role::Norm}, m.enorm);
  f(ParameterSpec{prefix + "hnorm.weight", {D}, Role::Norm}, m.hnorm);
  f(ParameterSpec{prefix + "eh_proj.weight", {D, 2 * D}, Role::EhProj}, m.eh_proj);
  // A module's block is of the kind that this layer would be.
  visit_block(c, layer, m.block, f);
  f(ParameterSpec{prefix + "shared_head.norm.weight", {D}, Role::Norm}, m.shared_head_norm);
}

}  // namespace detail

// f(const ParameterSpec&, Leaf&) for every tensor of some pipeline stages, always in the order of
// the model. Vectors of layers, experts and modules are given their length; what other stages hold
// stays empty.
template <class Leaf, class F>
void visit_parameters(const ModelConfig& c, std::span<const StageRange> stages,
                      ModelParameters<Leaf>& p, F&& f) {
  const Index D = c.hidden_size, L = c.num_hidden_layers;
  const auto any = [&](auto holds) { return std::any_of(stages.begin(), stages.end(), holds); };
  const bool output = any([](const StageRange& s) { return s.output; });
  if (any([](const StageRange& s) { return s.embedding; }) ||
      (output && c.num_nextn_predict_layers > 0))
    f(ParameterSpec{"model.embed_tokens.weight", {c.vocab_size, D}, Role::Embedding},
      p.embed_tokens);
  p.layers.resize(static_cast<std::size_t>(L));
  for (Index i = 0; i < L; ++i)
    if (any([i](const StageRange& s) { return s.holds_layer(i); }))
      detail::visit_block(c, i, p.layers[static_cast<std::size_t>(i)], f);
  p.mtp.resize(static_cast<std::size_t>(c.num_nextn_predict_layers));
  if (!output) return;
  f(ParameterSpec{"model.norm.weight", {D}, Role::Norm}, p.norm);
  f(ParameterSpec{"lm_head.weight", {c.vocab_size, D}, Role::Head}, p.lm_head);
  for (Index k = 0; k < c.num_nextn_predict_layers; ++k)
    detail::visit_mtp(c, k, p.mtp[static_cast<std::size_t>(k)], f);
}
// Of one.
template <class Leaf, class F>
void visit_parameters(const ModelConfig& c, const StageRange& stage, ModelParameters<Leaf>& p,
                      F&& f) {
  visit_parameters(c, std::span(&stage, 1), p, f);
}
// Of every tensor that is held here.
template <class Leaf, class F>
void visit_parameters(const ModelConfig& c, ModelParameters<Leaf>& p, F&& f) {
  visit_parameters(c, c.local_stages(), p, f);
}

// Of the routed experts alone, those held here, of all layers and modules that are.
template <class Leaf, class F>
void visit_routed_experts(const ModelConfig& c, ModelParameters<Leaf>& p, F&& f) {
  p.layers.resize(static_cast<std::size_t>(c.num_hidden_layers));
  p.mtp.resize(static_cast<std::size_t>(c.num_nextn_predict_layers));
  for (Index i = 0; i < c.num_hidden_layers + c.num_nextn_predict_layers; ++i)
    if (c.is_moe(i) && c.holds_layer(i)) detail::visit_routed(c, i, moe_of(c, p, i), f);
}

// The tensors in visiting order, with what they are.
template <class Leaf>
struct NamedParameter {
  ParameterSpec spec;
  Leaf* leaf;
};
template <class Leaf>
std::vector<NamedParameter<Leaf>> list_parameters(const ModelConfig& c, ModelParameters<Leaf>& p) {
  std::vector<NamedParameter<Leaf>> list;
  visit_parameters(c, p, [&](const ParameterSpec& spec, Leaf& leaf) {
    list.push_back({spec, &leaf});
  });
  return list;
}

// Zeros in every shape (gradients), biases included.
ModelParameters<Tensor> zero_parameters(const ModelConfig& c, DType dtype = DType::F32);

// The gradients of routed experts apart for each rank that sends tokens: [S, N, K] instead of
// [N, K]. Ranks that share experts then sum those of micro-batches in any order.
Shape shape_by_source(const ParameterSpec& spec, Index n_sources);
ModelParameters<Tensor> zero_gradients_by_source(const ModelConfig& c, Index n_sources,
                                                 DType dtype = DType::F32);

// FP32 parameters in double.
ModelParameters<Tensor> widened(const ModelConfig& c, ModelParameters<Tensor>& p);

// Master weights of a new model: every matrix normal with initializer_range as its standard
// deviation (one stream a tensor, from seed and name), norms 1, biases 0.
ModelParameters<Tensor> initial_parameters(const ModelConfig& c, std::uint64_t seed);

// Of what is held: the experts that others have are not counted, and `active` takes of the held
// ones the share that a token chooses.
struct ParameterCount {
  Index total = 0;   // main model and MTP modules
  Index main = 0;    // without MTP modules
  Index active = 0;  // of the main model per token: the chosen experts, one embedding row
  Index embedding = 0, head = 0, mtp = 0;
};
ParameterCount count_parameters(const ModelConfig& c);

}  // namespace minke
