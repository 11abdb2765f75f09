// What is behind the last layer in training: final norm, output head and MTP modules with their
// losses (the equations are in model/training_pass.h).
//
// The output head's B and W are taken in the forward pass, where the logits are: keeping logits
// until a later W would cost [T, vocabulary] a micro-batch. So F already adds to the head's
// gradient.
#pragma once
#include "model/mtp.h"
#include "model/pass_result.h"

namespace minke {

// Ids of columns [first, first + length) of every row of tokens [B, T+1], one after another.
std::vector<std::int32_t> token_window(View2<const std::int32_t> tokens, Index first, Index length);

// ids [T] -> rows [T, D] of the embedding.
template <class Real>
Tensor embed(const ModelOf<Real>& model, std::span<const std::int32_t> ids);

// x [T, D] -> RMSNorm(x) with the final norm's gain; rstd [T].
template <class Real>
Tensor final_norm(const ModelOf<Real>& model, const Tensor& x, Tensor& rstd);

struct ModuleSaved {              // of one MTP module
  std::vector<std::int32_t> ids;  // that it embeds
  MtpSaved mtp;
  Tensor dhead_norm;  // from the head; the next module's B adds to it
};
struct PredictionsSaved {
  Tensor x, rstd;  // [T, D], [T] before the final norm
  Tensor dnorm;    // [T, D] gradient behind it, from the head
  std::vector<ModuleSaved> modules;
};

struct ModuleWeightWork {
  std::vector<std::int32_t> ids;
  MtpWeightWork mtp;
};
struct PredictionsWeightWork {
  Tensor x, rstd, dnorm;
  std::vector<ModuleWeightWork> modules;
};

// Where gradients of the output's parameters go: `parameters` and, for the rows that MTP modules
// embed, `embedding_of_mtp` [vocabulary, D].
struct GradientTargets {
  ModelGradients& parameters;
  Tensor& embedding_of_mtp;
};

// tokens [B, T+1], x [B T, D] behind the last layer. Adds to the gradient of lm_head, and losses
// and loads to `result`.
template <class Real>
PredictionsSaved predictions_forward(const ModelOf<Real>& model, View2<const std::int32_t> tokens,
                                     const LossSettings& settings, bool keep_scores, Tensor x,
                                     ModelGradients& gradients, PassResult& result);
// -> dx [B T, D]. `add_now`: the gradients of every module's weights are added at once, which frees
// what they need before the next module's B; the work returned is then empty.
template <class Real>
PredictionsWeightWork predictions_backward_input(const ModelOf<Real>& model, SequenceBatch batch,
                                                 const LossSettings& settings,
                                                 PredictionsSaved saved, Tensor& dx,
                                                 PassResult& result,
                                                 const GradientTargets* add_now = nullptr);
template <class Real>
void predictions_backward_weight(const ModelOf<Real>& model, PredictionsWeightWork work,
                                 const GradientTargets& gradients);

// Prepares the balance term of a layer for its B; a dense layer gets `none`.
BalanceTerm& balance_term(PassResult& result, Index layer, const LossSettings& settings,
                          SequenceBatch batch, BalanceTerm& none);

}  // namespace minke
