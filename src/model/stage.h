// One pipeline stage in training: its part of the pass over a micro-batch, with F, B and W apart,
// so that a schedule (parallel/schedule.h) may order them. One stage that holds the whole model is
// the ordinary pass of model/training_pass.h.
//
//   F   x from the stage before (the embedding, on the first) -> y for the stage behind
//   B   dy from the stage behind (the losses, on the last)     -> dx for the stage before
//   W   gradients of the weights, any time after B
//
// A stage reads only its own weights, those that visit_parameters lists for its range. Results have
// the same bits however the model is cut, and with W at once or later.
#pragma once
#include <deque>
#include <optional>

#include "model/predictions.h"
#include "model/stage_range.h"

namespace minke {

// The same in F and B of a micro-batch.
struct StagePass {
  StageRange range;
  LossSettings settings;
  bool keep_scores = false;
};

struct StageSaved {
  SequenceBatch batch;
  std::vector<std::int32_t> ids;        // that the first stage embeds
  std::vector<BlockSaved> blocks;       // of the stage's layers
  std::optional<PredictionsSaved> end;  // of the last stage
};
// In the order in which B leaves it.
struct StageWeightWork {
  struct Layer {
    Index layer;
    BlockWeightWork block;
  };
  std::optional<PredictionsWeightWork> end;
  std::deque<Layer> layers;  // last to first
  std::vector<std::int32_t> ids;
  Tensor dembedding;  // [B T, D], on the first stage
};

// The gradients of a stage, with those of the two uses of the embedding apart: its rows as inputs
// of the first stage, and as MTP modules read them on the last. Only what the stage holds has
// memory.
struct StageGradients {
  ModelGradients parameters;
  Tensor embedding_of_mtp;  // [vocabulary, D]

  GradientTargets targets() { return {parameters, embedding_of_mtp}; }
};
// With `n_sources` those of routed experts are apart by source (shape_by_source).
StageGradients zero_gradients(const ModelConfig& config, const StageRange& range,
                              DType dtype = DType::F32, std::optional<Index> n_sources = {});
// Its tensors in visiting order, embedding_of_mtp last.
std::vector<Tensor*> list_tensors(const ModelConfig& config, const StageRange& range,
                                  StageGradients& gradients);

// ShapeError for tokens [B, T+1] whose rows are too short for the model's MTP modules.
void check_row_length(const ModelConfig& config, View2<const std::int32_t> tokens);

// F. tokens [B, T+1] of the micro-batch on every stage; x [B T, D], ignored on the first stage ->
// y [B T, D], undefined on the last, which adds to the gradient of lm_head already
// (model/predictions.h). `result` is that of start_result.
template <class Real>
StageSaved stage_forward(const ModelOf<Real>& model, const StagePass& pass,
                         View2<const std::int32_t> tokens, Tensor x, Tensor& y,
                         const GradientTargets& gradients, PassResult& result);

// B. dy [B T, D], ignored on the last stage -> dx [B T, D], undefined on the first.
template <class Real>
StageWeightWork stage_backward_input(const ModelOf<Real>& model, const StagePass& pass, Tensor dy,
                                     StageSaved saved, Tensor& dx, PassResult& result);
// The same into `work`, layer by layer: while this waits for other ranks, parts of it may be done.
template <class Real>
void stage_backward_input(const ModelOf<Real>& model, const StagePass& pass, Tensor dy,
                          StageSaved saved, Tensor& dx, PassResult& result, StageWeightWork& work);
// A part of W, the next that B has left: of the output, of a layer or of the embedding. False when
// there is none. Gradients are added to.
template <class Real>
bool stage_backward_weight_part(const ModelOf<Real>& model, StageWeightWork& work,
                                const GradientTargets& gradients);
// W: all parts.
template <class Real>
void stage_backward_weight(const ModelOf<Real>& model, StageWeightWork work,
                           const GradientTargets& gradients);

// B and W with the W of each layer right behind its B, so that the work of one layer at a time is
// in memory.
template <class Real>
void stage_backward(const ModelOf<Real>& model, const StagePass& pass, Tensor dy, StageSaved saved,
                    Tensor& dx, const GradientTargets& gradients, PassResult& result);

// x [B T, D] -> behind the stage's layers, nothing kept for a backward pass.
template <class Real>
Tensor layers_forward(const ModelOf<Real>& model, const StageRange& range, SequenceBatch batch,
                      Tensor x);

}  // namespace minke
