#include "model/cached_forward.h"

#include "base/error.h"
#include "model/experts.h"
#include "model/mla_decode.h"
#include "ops/embedding.h"
#include "ops/rmsnorm.h"

namespace minke {
namespace {

Tensor embed(const Model& model, std::span<const std::int32_t> tokens) {
  const Tensor& table = model.weights.embed_tokens.dense;
  Tensor x = Tensor::uninitialized({static_cast<Index>(tokens.size()), model.config.hidden_size});
  if (table.dtype() == DType::BF16)
    embedding_forward(table.view<BF16, 2>(), tokens, x.v2());
  else
    embedding_forward(table.v2(), tokens, x.v2());
  return x;
}

Tensor normed(const Model& model, View2<const float> x, const Weight& gain) {
  Tensor y = Tensor::uninitialized({x.extent(0), x.extent(1)});
  rmsnorm_forward(x, gain.dense.v1(), model.config.rms_norm_eps, y.v2());
  return y;
}

// One block over the new rows; x [T, D] becomes its output.
void cached_block(const Model& model, const BlockWeights& w, Index layer,
                  std::span<const Segment> segments, Tensor& x, Trace* trace) {
  Tensor out = Tensor::uninitialized(x.shape());
  mla_cached_forward(model, w.self_attn, layer, segments,
                     normed(model, x.v2(), w.input_layernorm).v2(), out.v2());
  add_to(out.v2(), x.v2());
  if (trace) trace->attn_out.push_back(out.clone());

  SharedTensor h = share(normed(model, x.v2(), w.post_attention_layernorm));
  if (w.is_moe) {
    MoeSaved moe = moe_forward(model, w.moe, std::move(h), out.v2());
    if (trace)
      trace->gates.push_back({layer, std::move(moe.gate.scores), std::move(moe.gate.indices),
                              std::move(moe.gate.weights)});
  } else {
    ffn_forward(model, w.mlp, operand(model, std::move(h)), out.v2());
  }
  add_to(out.v2(), x.v2());
  if (trace) trace->ffn_out.push_back(out.clone());
}

}  // namespace

AttentionForm parse_attention_form(std::string_view name) {
  if (name == "absorbed") return AttentionForm::Absorbed;
  if (name == "expanded") return AttentionForm::Expanded;
  throw ConfigError(
      fmt::format("attention form \"{}\" is unknown; expected absorbed or expanded", name));
}

void cached_layers(const Model& model, Index first, Index last, std::span<const Segment> segments,
                   Tensor& x, Trace* trace) {
  for (Index layer = first; layer < last; ++layer) {
    const BlockWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
    cached_block(model, w, layer, segments, x, trace);
    if (trace) trace->hidden.push_back(x.clone());
  }
}

Tensor cached_forward(const Model& model, std::span<const std::int32_t> tokens,
                      std::span<const Segment> segments, Trace* trace) {
  Tensor x = embed(model, tokens);
  if (trace) trace->hidden.push_back(x.clone());
  if (model.layer_ranks)
    x = model.layer_ranks->pass(model, segments, std::move(x));
  else
    cached_layers(model, 0, model.config.num_hidden_layers, segments, x, trace);
  return normed(model, x.v2(), model.weights.norm);
}

Tensor cached_mtp_forward(const Model& model, Index k, std::span<const std::int32_t> tokens,
                          View2<const float> h, std::span<const Segment> segments, Trace* trace) {
  const MtpWeights& w = model.weights.mtp[static_cast<std::size_t>(k)];
  const double eps = model.config.rms_norm_eps;
  const Index T = h.extent(0), D = model.config.hidden_size;
  Tensor joined = Tensor::uninitialized({T, 2 * D});
  rmsnorm_forward(embed(model, tokens).v2(), w.enorm.dense.v1(), eps, joined.v2().columns(0, D));
  rmsnorm_forward(h, w.hnorm.dense.v1(), eps, joined.v2().columns(D, D));
  Tensor z = Tensor::uninitialized({T, D});
  apply(w.eh_proj, joined.v2(), z.v2());
  if (trace) trace->eh_out = z.clone();
  cached_block(model, w.block, model.config.num_hidden_layers + k, segments, z, trace);
  Tensor head_norm = normed(model, z.v2(), w.shared_head_norm);
  if (trace) trace->block_out = std::move(z);
  return head_norm;
}

Tensor output_logits(const Model& model, View2<const float> h) {
  Tensor logits = Tensor::uninitialized({h.extent(0), model.config.vocab_size});
  apply(model.weights.lm_head, h, logits.v2());
  return logits;
}

}  // namespace minke
