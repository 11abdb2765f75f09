// How the ranks of a job make a step together: one rank does all of it (one_rank_step), or several
// share out the model, micro-batches and optimiser states (train/ranked_step.h). A step is
//
//   accumulate       losses and gradients of the batch
//   gradient_norm    of the whole batch's gradient
//   apply or skip    the update, or none
//
// each called by every rank, in this order; results and decisions are those of all ranks alike.
// What else is asked of a model that no rank may have whole is asked here too: everything is
// collective.
#pragma once
#include <memory>
#include <span>

#include "model/mtp_acceptance.h"
#include "parallel/timeline.h"
#include "train/state_files.h"
#include "train/training_step.h"

namespace minke {

struct HeldOutRows;

// Rows whose main loss is asked for.
struct LossRows {
  View2<const std::int32_t> tokens;  // [B, T+1]
  DocumentStarts starts = {};
};

class StepForm {
 public:
  virtual ~StepForm() = default;

  // As accumulate_gradients: false, and gradients of zero, when any rank was asked to stop.
  virtual bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                          FunctionRef<bool()> stop, PassResult& result) = 0;
  // Between both: this rank's gradients, of some micro-batch of the batch.
  virtual std::vector<NamedParameter<Tensor>> gradients() = 0;
  virtual double gradient_norm() = 0;
  // After gradient_norm: state.gradients become the whole gradient of what the rank holds, to be
  // looked at.
  virtual void show_gradients() = 0;
  virtual void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
                     double norm) = 0;
  virtual void skip() = 0;

  // evaluate_loss of each of the groups of rows, the same on all ranks.
  virtual std::vector<double> losses(std::span<const LossRows> groups) = 0;
  // Where a row's forward pass leaves the finite numbers; nothing when it does not.
  virtual std::optional<NonFiniteOutput> non_finite_output(const LossRows& row) = 0;
  // held_out_acceptance of the model, the same on all ranks.
  virtual Acceptance acceptance(const std::vector<HeldOutRows>& held_out,
                                Index sequence_length) = 0;
  // f() while the moving average takes the place of the weights that products read.
  virtual void with_average(FunctionRef<void()> f) = 0;
  // f(what this rank writes of the state) on every rank; those tensors are whole in the meantime.
  virtual void with_part(FunctionRef<void(const StatePart&)> f) = 0;
  // f(the weights and the average of the whole model) on rank 0, to be written.
  virtual void with_weights(FunctionRef<void(StateTensors&)> f) = 0;

  // What the rank does in accumulate goes there once it is begun. Null: one rank waits for nobody.
  virtual Timeline* timeline() = 0;
  // By this rank so far, on communicators of the form's own.
  virtual std::uint64_t bytes_sent() const = 0;
};

// Everything in `state`, which must outlive the form.
std::unique_ptr<StepForm> one_rank_step(TrainState& state);

// The moving average in the memory of the packed weights while f() runs.
void with_average_of(TrainState& state, FunctionRef<void()> f);

}  // namespace minke
