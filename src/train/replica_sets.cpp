#include "train/replica_sets.h"

#include <algorithm>

namespace minke {
namespace {

// Of the ranks of a set in the order of data ranks; of two that are replicas in dualpipe the lower
// pipeline rank first.
int key_of(const Mesh& mesh) {
  return mesh.data_rank() * mesh.shape().pipeline + mesh.place().pipeline;
}

bool reads_embedding(const ModelConfig& config, const StageRange& stage) {
  return stage.embedding || (stage.output && config.num_nextn_predict_layers > 0);
}

bool holds_embedding(const ModelConfig& config) {
  const std::vector<StageRange> stages = config.local_stages();
  return std::any_of(stages.begin(), stages.end(),
                     [&](const StageRange& stage) { return reads_embedding(config, stage); });
}

// Collective. The ranks of `group` by their ranks in `world`.
std::map<int, int> ranks_of_world(const Communicator& world, Communicator& group) {
  const int own = world.rank();
  std::vector<int> all(static_cast<std::size_t>(group.size()));
  Request request =
      group.all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(all)));
  wait(request);
  std::map<int, int> ranks;
  for (std::size_t r = 0; r < all.size(); ++r) ranks.emplace(all[r], static_cast<int>(r));
  return ranks;
}

}  // namespace

ReplicaSets::ReplicaSets(const Mesh& mesh, const TrainingLayout& layout, TrainState& state,
                         const std::vector<std::string>& no_decay)
    : mesh_(mesh),
      state_(state),
      stages_(stages_of(layout, state.config)),
      pieces_(pieces_of_model(state.config.whole())) {
  Communicator& world = mesh.world();
  const int holder = first_holder(layout, mesh.place().pipeline);
  rest_ = world.split(holder, key_of(mesh));
  experts_ = world.split(holder * mesh.shape().expert + mesh.place().expert, key_of(mesh));
  embedding_ = world.split(holds_embedding(state.config) ? 0 : 1, key_of(mesh));
  for (const int stage : held_stages(layout, mesh.place().pipeline)) {
    add_set({Kind::Rest, stage}, *rest_, no_decay);
    add_set({Kind::Experts, stage}, *experts_, no_decay);
  }
  if (holds_embedding(state.config)) add_set({Kind::Embedding, -1}, *embedding_, no_decay);
  take_states();
}

void ReplicaSets::add_set(Tensors of, Communicator& ranks,
                          const std::vector<std::string>& no_decay) {
  ShardSettings settings{.moments = dtype_of_moments(state_.moments.type), .ema = {}};
  if (state_.ema) settings.ema = state_.ema->matrices;
  std::vector<ShardedTensor> tensors;
  visit(of, state_.masters, [&](const ParameterSpec& spec, Tensor& weight) {
    tensors.push_back({.name = spec.name,
                       .weight = &weight,
                       .decays = decays(no_decay, spec.name),
                       .first_piece = pieces_.first.at(spec.name)});
  });
  sets_.push_back(
      {of, &ranks, ranks_of_world(mesh_.world(), ranks), {ranks, std::move(tensors), settings}});
}

void ReplicaSets::take_states() {
  for (Set& set : sets_) {
    take_moments({list(set.of, state_.moments.first), list(set.of, state_.moments.second)},
                 set.optimizer);
    if (state_.ema) take_averages(list(set.of, state_.ema->weights), set.optimizer);
  }
  release_moments();
  if (state_.ema) release_average();
}

// f(spec, tensor) for the tensors of a set in the order of the model.
template <class F>
void ReplicaSets::visit(Tensors of, ModelParameters<Tensor>& parameters, F&& f) const {
  const auto is_of_set = [&](const ParameterSpec& spec) {
    if (spec.role == Role::Bias) return false;
    if (spec.role == Role::Embedding) return of.kind == Kind::Embedding;
    return of.kind == (is_routed_expert(spec) ? Kind::Experts : Kind::Rest);
  };
  const auto f_of_set = [&](const ParameterSpec& spec, Tensor& tensor) {
    if (is_of_set(spec)) f(spec, tensor);
  };
  if (of.kind == Kind::Embedding)
    visit_parameters(state_.config, parameters, f_of_set);
  else
    visit_parameters(state_.config, stages_[static_cast<std::size_t>(of.stage)], parameters,
                     f_of_set);
}

std::vector<Tensor*> ReplicaSets::list(Tensors of, ModelParameters<Tensor>& parameters) const {
  std::vector<Tensor*> tensors;
  visit(of, parameters, [&](const ParameterSpec&, Tensor& tensor) { tensors.push_back(&tensor); });
  return tensors;
}

std::vector<GradientTerm> ReplicaSets::terms_of(Tensors of, std::span<StageTerm> terms,
                                                Index n_own) const {
  std::vector<GradientTerm> found;
  for (StageTerm& term : terms) {
    const Index m = term.micro_batch;
    if (of.kind == Kind::Embedding) {
      for (Tensor* use :
           {&term.gradients.embedding_of_mtp, &term.gradients.parameters.embed_tokens})
        if (use->defined())
          found.push_back(whole_term(2 * m + (use != &term.gradients.embedding_of_mtp), {use}));
      continue;
    }
    if (term.stage != of.stage) continue;
    const std::vector<Tensor*> tensors = list(of, term.gradients.parameters);
    if (of.kind == Kind::Rest || tensors.empty() || tensors.front()->rank() == 2) {
      found.push_back(whole_term(m, tensors));
      continue;
    }
    // By source [S, N, K]: source s had its micro-batch at the same place among its own.
    for (int s = 0; s < mesh_.shape().expert; ++s) {
      found.push_back({m + (s - mesh_.place().expert) * n_own, {}});
      for (Tensor* tensor : tensors)
        found.back().parts.push_back({tensor, s * (tensor->size() / tensor->extent(0))});
    }
  }
  return found;
}

void ReplicaSets::reduce_gradients(std::span<StageTerm> terms, Index n_own) {
  for (Set& set : sets_) set.optimizer.reduce_gradients(terms_of(set.of, terms, n_own));
}

void ReplicaSets::gather_gradients(ModelGradients& whole) {
  for (Set& set : sets_) set.optimizer.gather_gradients(list(set.of, whole));
}

double ReplicaSets::gradient_norm() {
  std::vector<PieceSum> sums;
  for (Set& set : sets_)
    for (const PieceSum& sum : set.optimizer.squares()) sums.push_back(sum);
  return minke::gradient_norm(mesh_.world(), sums, pieces_.count);
}

void ReplicaSets::update(const AdamW& settings) {
  for (Set& set : sets_) {
    set.optimizer.update(settings);
    set.optimizer.gather_weights();
  }
}

void ReplicaSets::update_ema(const EmaUpdate& update) {
  for (Set& set : sets_) set.optimizer.update_ema(update);
}

void ReplicaSets::gather_moments(const std::map<std::string, int>& writers) {
  Moments& moments = state_.moments;
  for (Set& set : sets_) {
    std::vector<int> to;
    for (const ShardedTensor& tensor : set.optimizer.tensors())
      to.push_back(set.rank_of.at(writers.at(tensor.name)));
    for (ModelParameters<Tensor>* parameters : {&moments.first, &moments.second})
      visit(set.of, *parameters, [&](const ParameterSpec& spec, Tensor& tensor) {
        if (writers.at(spec.name) == mesh_.world().rank())
          tensor = Tensor::uninitialized(dtype_of_moments(moments.type), spec.shape);
      });
    minke::gather_moments(*set.ranks, set.optimizer, to,
                          {list(set.of, moments.first), list(set.of, moments.second)});
  }
}

void ReplicaSets::release_moments() {
  state_.moments.first = {};
  state_.moments.second = {};
}

void ReplicaSets::gather_average() {
  for (Set& set : sets_) {
    visit(set.of, state_.ema->weights, [&](const ParameterSpec& spec, Tensor& tensor) {
      tensor = Tensor::uninitialized(spec.shape.size() == 1 ? DType::F32 : state_.ema->matrices,
                                     spec.shape);
    });
    gather_averages(*set.ranks, set.optimizer, list(set.of, state_.ema->weights));
  }
}

void ReplicaSets::release_average() {
  for (Set& set : sets_)
    for (Tensor* tensor : list(set.of, state_.ema->weights)) *tensor = {};
}

std::uint64_t ReplicaSets::bytes_sent() const {
  return rest_->bytes_sent() + experts_->bytes_sent() + embedding_->bytes_sent();
}

}  // namespace minke
