// Losses and gradients of one micro-batch: the whole model forward and backward.
//   total = main + lambda / D sum_k mtp_k + balance
//   main     cross-entropy of t[i+1], mean over B T positions
//   mtp_k    cross-entropy of t[i+k+2] summed over the T-k-1 positions of module k, over B T
//            (the report's equation 24)
//   balance  the balance loss of every MoE layer, MTP modules included (17-20), by sequences or
//            over the whole micro-batch
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "model/pass_result.h"

namespace minke {

// tokens [B, T+1]: inputs are the first T of a row. Gradients are added to `gradients`; those of
// both uses of the embedding to one tensor, MTP modules first.
template <class Real>
PassResult forward_backward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                            const LossSettings& settings, ModelGradients& gradients,
                            bool keep_scores = false);

// The main loss alone (mean negative log-likelihood per position, natural logarithm), no gradient.
double evaluate_loss(const Model& model, View2<const std::int32_t> tokens,
                     DocumentStarts starts = {});
// The same from x [B T, D] behind the last layer, by the stage that has the output head.
double output_loss(const Model& model, View2<const std::int32_t> tokens, const Tensor& x);

// Where a forward pass first leaves the finite numbers, by the names of `minke forward --collect`.
struct NonFiniteOutput {
  std::string tensor;          // embedding, layers.N.attn_out, layers.N.ffn_out, final_norm, logits
  std::optional<Index> layer;  // N
};
// Of the main model, block by block; to be asked after a fault, not in a healthy step. Nothing when
// all outputs are finite.
std::optional<NonFiniteOutput> find_non_finite_output(const Model& model,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts = {});
// Of one stage: x [B T, D] from the stage before, ignored on the first -> behind its layers.
std::optional<NonFiniteOutput> find_non_finite_output(const Model& model, const StageRange& range,
                                                      View2<const std::int32_t> tokens,
                                                      DocumentStarts starts, Tensor& x);

}  // namespace minke
