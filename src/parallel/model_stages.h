// The stages of a model that one rank holds, run by the executor of schedules: one, or one for each
// phase with dualpipe and dualpipev.
//
// Gradients come in one of two orders.
//   Fixed  each micro-batch into buffers of its own: the terms of a sum that does not depend on the
//          layout. Term by term, in the order of micro-batches, the sum has the same bits on any
//          number of ranks (model/stage.h keeps the two uses of the embedding apart). Costs the
//          memory of a model for every micro-batch.
//   Fast   all micro-batches of a stage into one buffer, as they come.
#pragma once
#include <deque>
#include <map>
#include <optional>

#include "model/stage.h"
#include "parallel/pipeline.h"

namespace minke {

enum class GradientOrder : std::uint8_t { Fixed, Fast };
// Of activations and their gradients between stages. The report sends BF16; FP32 loses nothing.
enum class BoundaryFormat : std::uint8_t { Fp32, Bf16 };
// Fp32 for compute fp32, else Bf16.
BoundaryFormat boundary_format(Compute compute);

struct ModelStagesSettings {
  // share: of one micro-batch in the whole batch of all ranks; starts: of all the pipeline's rows
  LossSettings loss;
  Index micro_batch_rows = 1;  // sequences of a micro-batch
  GradientOrder order = GradientOrder::Fast;
  std::optional<Index> n_sources = {};  // gradients of routed experts by source (zero_gradients)
  BoundaryFormat boundary = BoundaryFormat::Fp32;
  bool keep_scores = false;
};

class ModelStages final : public StageRunner {
 public:
  // The stages of `rank` among `stages`, which are all of the schedule's (cut_stages). tokens
  // [n_chunks micro_batch_rows, T+1] are the pipeline's rows, all ranks the same. `model` needs the
  // weights of the rank's own stages; model and tokens must outlive this. ShapeError when rows and
  // chunks do not fit, or stages and schedule.
  ModelStages(const Schedule& schedule, int rank, const std::vector<StageRange>& stages,
              const Model& model, View2<const std::int32_t> tokens,
              const ModelStagesSettings& settings);

  std::size_t message_bytes(MicroBatch micro_batch) const override;
  MessageBytes forward(MicroBatch micro_batch, MessageBytes input) override;
  MessageBytes backward_input(MicroBatch micro_batch, MessageBytes dy) override;
  MessageBytes backward(MicroBatch micro_batch, MessageBytes dy) override;
  void backward_weight(MicroBatch micro_batch) override;
  MessageBytes backward_in_parts(MicroBatch micro_batch, MessageBytes dy) override;
  std::optional<MicroBatch> backward_weight_part() override;

  const StageRange& range(int phase) const { return phases_[phase].range; }
  // Of the phase's stage, after the list: a term for each of its micro-batches in order (Fixed), or
  // one with their sum (Fast). The gradient of a stage is the sum over the terms of its holders
  // (parallel/pipeline.h), which with dualpipe are two ranks.
  std::vector<StageGradients>& gradients(int phase) { return phases_[phase].gradients; }
  // The phase's part of the losses and loads of each of its micro-batches; `joined` makes one of
  // the parts of all stages.
  std::vector<PassResult>& results(int phase) { return phases_[phase].results; }

 private:
  struct Phase {
    StageRange range;
    std::vector<StageGradients> gradients;
    std::vector<PassResult> results;
    std::map<int, StageSaved> saved;      // by chunk, between F and B
    std::map<int, StageWeightWork> work;  // between B and W
  };

  Phase& phase(MicroBatch m) { return phases_[m.phase]; }
  StageGradients zero_buffer(const StageRange& range) const;
  StagePass pass(MicroBatch m) const;
  View2<const std::int32_t> tokens(MicroBatch m) const;
  GradientTargets targets(MicroBatch m);
  PassResult& result(MicroBatch m);
  StageSaved take_saved(MicroBatch m);
  Tensor unpack(MessageBytes bytes) const;
  MessageBytes pack(const Tensor& rows) const;

  const Schedule& schedule_;
  const Model& model_;
  const View2<const std::int32_t> tokens_;
  const ModelStagesSettings settings_;
  Phase phases_[2];
  struct WeightParts {
    MicroBatch micro_batch;
    StageWeightWork work;  // as far as BI has come
  };
  std::deque<WeightParts> parts_;
};

}  // namespace minke
