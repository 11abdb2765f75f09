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
#include <span>
#include <string>
#include <vector>

#include "model/mtp.h"

namespace minke {

// Of each row of tokens the positions at which a document begins, ascending from 0: attention does
// not look across them. Empty: it sees whole rows.
using DocumentStarts = std::span<const std::vector<Index>>;

struct LossSettings {
  double mtp_lambda = 0.3;
  double alpha = 1e-4;
  // Part of the whole batch that this micro-batch is (its sequences over all sequences); losses and
  // gradients are scaled by it, so that micro-batches add up.
  double share = 1;
  BalanceScope balance_scope = BalanceScope::Sequence;
  DocumentStarts starts = {};
};

struct MoeLayerRecord {
  Index layer;                     // index in the published names, MTP modules included
  std::vector<std::int64_t> load;  // selections per expert
  BalanceTerm balance;
  Tensor scores;  // [T, E], kept when asked for
};

struct Fp8LayerRecord {
  Index layer;  // as in MoeLayerRecord
  Fp8LayerCounts counts;
};

struct PassResult {
  double total = 0, main = 0;
  double mtp = 0;             // with its factor
  std::vector<double> mtp_k;  // without
  double balance = 0;
  std::vector<MoeLayerRecord> moe;
  std::vector<Fp8LayerRecord> fp8;  // of every layer in FP8 training with statistics, else empty
  double saved_bytes = 0;  // that the forward pass kept for the backward pass, logits left out
};

// tokens [B, T+1]: inputs are the first T of a row. Gradients are added to `gradients`.
template <class Real>
PassResult forward_backward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                            const LossSettings& settings, ModelGradients& gradients,
                            bool keep_scores = false);

// The main loss alone (mean negative log-likelihood per position, natural logarithm), no gradient.
double evaluate_loss(const Model& model, View2<const std::int32_t> tokens,
                     DocumentStarts starts = {});

// Where a forward pass first leaves the finite numbers, by the names of `minke forward --collect`.
struct NonFiniteOutput {
  std::string tensor;          // embedding, layers.N.attn_out, layers.N.ffn_out, final_norm, logits
  std::optional<Index> layer;  // N
};
// Of the main model, block by block; to be asked after a fault, not in a healthy step. Nothing when
// all outputs are finite.
std::optional<NonFiniteOutput> find_non_finite_output(const Model& model,
                                                      View2<const std::int32_t> tokens);

}  // namespace minke
