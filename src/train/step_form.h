// How the ranks of a job make a step together: one rank does all of it (one_rank_step), or several
// share out micro-batches and optimiser states (train/ranked_step.h). A step is
//
//   accumulate       losses and gradients of the batch
//   gradient_norm    of the whole batch's gradient
//   apply or skip    the update, or none
//
// each called by every rank, in this order; results and decisions are those of all ranks alike.
#pragma once
#include <memory>

#include "train/training_step.h"

namespace minke {

class StepForm {
 public:
  virtual ~StepForm() = default;

  // As accumulate_gradients: false, and gradients of zero, when any rank was asked to stop.
  virtual bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                          FunctionRef<bool()> stop, PassResult& result) = 0;
  virtual double gradient_norm() = 0;
  // After gradient_norm: state.gradients become the whole gradient on every rank, to be looked at.
  virtual void show_gradients() = 0;
  virtual void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
                     double norm) = 0;
  virtual void skip() = 0;

  // Around a checkpoint: state.moments of rank 0 are those of the whole model in between.
  virtual void gather_moments() = 0;
  virtual void release_moments() = 0;
};

// Everything in `state`, which must outlive the form.
std::unique_ptr<StepForm> one_rank_step(TrainState& state);

}  // namespace minke
