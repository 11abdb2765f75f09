// The tensors that a rank holds, by the ranks that have replicas of them. Each set has an optimizer
// whose states are spread over its ranks (parallel/zero1.h):
//
//   of each held stage  the rest      on all ranks that hold the stage
//                       the experts   on those of them with the same share of the routed experts
//   the embedding                     on the ranks of the first stage, and of the last one where
//   MTP
//                                     modules read it
//
// In dualpipe two ranks of a pipeline hold the same two stages, and are replicas of each other.
//
// The terms of a gradient are added in the order of micro-batches; a micro-batch's two terms of the
// embedding, MTP modules first.
#pragma once
#include <list>
#include <map>
#include <string>

#include "model/stage.h"
#include "parallel/shard_states.h"
#include "train/train_state.h"
#include "train/training_layout.h"

namespace minke {

// The gradient of a stage, of one micro-batch or the sum of several.
struct StageTerm {
  int stage;          // of the pipeline
  Index micro_batch;  // of the batch: the number of the term
  StageGradients gradients;
};

class ReplicaSets {
 public:
  // Collective over the mesh. Weights, moments and average are those of `state`, which must outlive
  // this; moments and average are taken out of it, but for biases, which have no gradient.
  ReplicaSets(const Mesh& mesh, const TrainingLayout& layout, TrainState& state,
              const std::vector<std::string>& no_decay);

  // Collective, all that follow. `n_own`: micro-batches of every pipeline.
  void reduce_gradients(std::span<StageTerm> terms, Index n_own);
  // After it: the sum, whole on every rank, to tensors of the own part.
  void gather_gradients(ModelGradients& whole);
  double gradient_norm();
  // Weights and moments; the weights go to all replicas.
  void update(const AdamW& settings);
  void update_ema(const EmaUpdate& update);

  // Back into the state: a tensor's moments on the rank that `writers` says
  // (train/spread_tensors.h), the average on all.
  void gather_moments(const std::map<std::string, int>& writers);
  void release_moments();
  void gather_average();
  void release_average();

  std::uint64_t bytes_sent() const;

 private:
  enum class Kind : std::uint8_t { Rest, Experts, Embedding };
  struct Tensors {  // which
    Kind kind;
    int stage;  // -1 of the embedding
  };
  struct Set {
    Tensors of;
    Communicator* ranks;
    std::map<int, int> rank_of;  // in the set, by the rank in the world
    ShardedOptimizer optimizer;
  };

  void add_set(Tensors of, Communicator& ranks, const std::vector<std::string>& no_decay);
  void take_states();
  template <class F>
  void visit(Tensors of, ModelParameters<Tensor>& parameters, F&& f) const;
  std::vector<Tensor*> list(Tensors of, ModelParameters<Tensor>& parameters) const;
  std::vector<GradientTerm> terms_of(Tensors of, std::span<StageTerm> terms, Index n_own) const;

  const Mesh& mesh_;
  TrainState& state_;
  const std::vector<StageRange> stages_;
  const ModelPieces pieces_;
  std::unique_ptr<Communicator> rest_, experts_, embedding_;
  std::list<Set> sets_;  // in the same order on every rank of a set
};

}  // namespace minke
