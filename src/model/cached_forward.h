// Inference: the model forward over new tokens of sequences whose past is in a latent cache.
//
// Rows of several sequences go through every product together; only attention looks at each
// sequence's own cache. A row's result depends on its own sequence alone (see ops/linear.h,
// ops/attention.h): not on the other segments, the chunking, or the threads. It does depend on the
// attention form, so prompt tokens always go through one form and generated tokens through one.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "model/latent_cache.h"

namespace minke {

// Absorbed: queries go into latent space, a cache row is key and value (cheap for one token).
// Expanded: keys and values are made from the cache rows again (cheap for many tokens).
enum class AttentionForm : std::uint8_t { Absorbed, Expanded };
AttentionForm parse_attention_form(std::string_view name);  // "absorbed", "expanded"

// The next n_tokens of one sequence, from position cache->length(layer) on.
struct Segment {
  LatentCache* cache;
  Index n_tokens;
  AttentionForm form;
};

struct GateTrace {
  Index layer;
  Tensor scores, indices, weights;  // [T, E], I32 [T, K], [T, K]
};
// What `minke forward --collect` shows. Rows are those of the call.
struct Trace {
  std::vector<Tensor> hidden;             // L + 1: embedding, then each layer's output
  std::vector<Tensor> attn_out, ffn_out;  // L: added to the residual stream
  std::vector<GateTrace> gates;           // of MoE layers
  // MTP calls: eh_out, block_out.
  Tensor eh_out, block_out;
};

// tokens of all segments, one after another -> [T, D] after the final norm. The main layers of the
// caches grow by the new rows (room must be reserved). Layers may be on other ranks
// (Model::layer_ranks); there is no trace then.
Tensor cached_forward(const Model& model, std::span<const std::int32_t> tokens,
                      std::span<const Segment> segments, Trace* trace = nullptr);

// x [T, D] <- behind the main layers [first, last), which must be here.
void cached_layers(const Model& model, Index first, Index last, std::span<const Segment> segments,
                   Tensor& x, Trace* trace = nullptr);

// MTP module k: tokens[i] is the token after the one whose state is h[i]; h [T, D] is the result of
// cached_forward (module 0) or of module k-1 -> [T, D] its head_norm. Layer L + k of the caches
// grows.
Tensor cached_mtp_forward(const Model& model, Index k, std::span<const std::int32_t> tokens,
                          View2<const float> h, std::span<const Segment> segments,
                          Trace* trace = nullptr);

// h [T, D] -> logits [T, vocabulary].
Tensor output_logits(const Model& model, View2<const float> h);

}  // namespace minke
