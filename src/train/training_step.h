// One step of training: gradients of a batch, clipping, AdamW, the router's biases.
#pragma once
#include "base/function_ref.h"
#include "model/training_pass.h"
#include "train/train_state.h"

namespace minke {

// Losses and gradients of tokens [B, T+1], in micro-batches of at most `micro_batch` sequences,
// added to state.gradients. `result` gets losses and loads of the whole batch; its balance terms
// and scores (kept when asked for) only when there is one micro-batch. `stop` is asked between
// micro-batches: true ends the batch, which then leaves gradients of zero; the return value is
// whether the batch was completed.
struct BatchSettings {
  double mtp_lambda = 0.3;
  double alpha = 1e-4;
  Index micro_batch = 0;  // 0: the whole batch at once
  bool keep_scores = false;
  BalanceScope balance_scope = BalanceScope::Sequence;
  DocumentStarts starts = {};  // of every row of the batch, or none
};
template <class Real>
bool accumulate_gradients(TrainStateOf<Real>& state, View2<const std::int32_t> tokens,
                          const BatchSettings& settings, FunctionRef<bool()> stop,
                          PassResult& result);

// Adds losses, loads and FP8 counts of a micro-batch. Scores and balance terms of several are not
// one tensor: they are dropped.
void add_result(const PassResult& part, PassResult& sum);
// Rows [first, first + n), or none of none.
DocumentStarts starts_of_rows(DocumentStarts starts, Index first, Index n);

// The update from state.gradients, whose gradient_norm is `norm`: clipping, AdamW, biases by the
// loads of `result`, packed weights, moving average. state.step grows by one.
template <class Real>
void apply_gradients(TrainStateOf<Real>& state, const OptimizerSettings& settings, double gamma,
                     const PassResult& result, double norm);

// What follows the update of the masters: biases of the layers held here by the loads of `result`,
// packed weights, moving average; state.step grows by one.
template <class Real>
void finish_update(TrainStateOf<Real>& state, double gamma, const PassResult& result);

// The number that the next update has, from 1.
template <class Real>
std::int64_t next_update(const TrainStateOf<Real>& state) {
  return state.step - state.skipped + 1;
}

// A step without update: the gradients are dropped, state.step and state.skipped grow by one.
void skip_step(TrainState& state);

// The bias vector of MoE layer `layer` (index in the published names, MTP modules included), which
// must be held.
Tensor& router_bias(const ModelConfig& config, ModelParameters<Tensor>& parameters, Index layer);

// The largest expert load over the mean, worst of all layers.
double worst_load_ratio(const PassResult& result);

}  // namespace minke
