#include "train/ranked_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/threads.h"
#include "ops/permute.h"
#include "parallel/agreement.h"
#include "parallel/expert_exchange.h"
#include "parallel/pipeline_loss.h"
#include "parallel/spread_layers.h"
#include "train/held_out_acceptance.h"
#include "train/ranked_result.h"
#include "train/replica_sets.h"
#include "train/spread_tensors.h"

namespace minke {
namespace {

void add(const Tensor& term, Tensor& sum) {
  parallel_ranges(sum.size(), kPiece, [&](Index begin, Index end) {
    const std::array<Index, 2> row{1, end - begin};
    add_to(reshape<2>(term.flat().slice(0, begin, end - begin), row),
           reshape<2>(sum.flat().slice(0, begin, end - begin), row));
  });
}

// The two uses of the embedding, where a stage has both, as one tensor.
void join_uses(StageGradients& gradients) {
  Tensor& of_mtp = gradients.embedding_of_mtp;
  if (!of_mtp.defined() || !gradients.parameters.embed_tokens.defined()) return;
  add(of_mtp, gradients.parameters.embed_tokens);
  of_mtp = {};
}

// The embedding's gradient of a stage after join_uses; null where it does not use it.
Tensor* embedding_of(StageGradients& gradients) {
  for (Tensor* use : {&gradients.parameters.embed_tokens, &gradients.embedding_of_mtp})
    if (use->defined()) return use;
  return nullptr;
}

// sum += term of a later micro-batch, with the additions that the terms apart would get: the two
// uses of the embedding become one.
void add(const ModelConfig& config, const StageRange& stage, StageGradients term,
         StageGradients& sum) {
  join_uses(sum);
  if (term.embedding_of_mtp.defined()) add(term.embedding_of_mtp, sum.parameters.embed_tokens);
  term.embedding_of_mtp = {};
  const std::vector<Tensor*> from = list_tensors(config, stage, term);
  const std::vector<Tensor*> to = list_tensors(config, stage, sum);
  for (std::size_t i = 0; i < to.size(); ++i) add(*from[i], *to[i]);
}

class RankedStep final : public StepForm {
 public:
  RankedStep(Communicator& world, TrainState& state, const RankedSettings& settings)
      : world_(world),
        state_(state),
        settings_(settings),
        mesh_(world, settings.layout.mesh),
        stages_(stages_of(settings.layout, state.config)),
        replicas_(mesh_, settings.layout, state, settings.no_decay) {
    state_.gradients = {};
    if (settings.layout.mesh.expert == 1) return;
    exchange_.emplace(mesh_.expert_group(),
                      OverlappingCommunicator::Rank{.baton = baton(), .timeline = &timeline_});
    experts_.emplace(*exchange_, state.config.n_routed_experts, settings.exchange);
    state_.model.make_dispatch = exchange_over(*experts_);
  }
  ~RankedStep() override { state_.model.make_dispatch = {}; }
  RankedStep(const RankedStep&) = delete;
  RankedStep& operator=(const RankedStep&) = delete;

  bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                  FunctionRef<bool()> stop, PassResult& result) override {
    if (any_of_ranks(world_, stop())) return false;
    const Index B = tokens.extent(0);
    const Index micro = settings.micro_batch > 0 ? settings.micro_batch : B;
    const int n_pipelines = mesh_.shape().n_data_ranks();
    const IndexRange own = share_of(B / micro, n_pipelines, mesh_.data_rank());
    MINKE_ASSERT(own.size() * micro * n_pipelines == B);
    n_own_ = own.size();
    RankedResult results = start_results(B / micro);
    const Index at_once =
        is_one_stage() && settings_.order == GradientOrder::Fixed ? 1 : own.size();
    for (Index m = own.begin; m < own.end; m += at_once)
      pass(tokens, settings, {m, m + at_once}, results);
    result = std::move(results).joined(world_);
    return true;
  }

  std::vector<NamedParameter<Tensor>> gradients() override {
    StageTerm& term = terms_.front();
    std::vector<NamedParameter<Tensor>> list;
    visit_parameters(state_.config, range_of(term), term.gradients.parameters,
                     [&](const ParameterSpec& spec, Tensor& tensor) {
                       if (tensor.defined()) list.push_back({spec, &tensor});
                     });
    return list;
  }

  double gradient_norm() override {
    replicas_.reduce_gradients(terms_, n_own_);
    terms_.clear();
    return replicas_.gradient_norm();
  }

  void show_gradients() override {
    state_.gradients = zero_parameters(state_.config);
    replicas_.gather_gradients(state_.gradients);
  }

  void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
             double norm) override {
    state_.gradients = {};
    const std::int64_t n = next_update(state_);
    replicas_.update(adamw_of(settings, n, norm));
    if (state_.ema) replicas_.update_ema({.decay = state_.ema->decay, .n = n});
    finish_update(state_, gamma, result);
  }

  void skip() override {
    state_.gradients = {};
    ++state_.step;
    ++state_.skipped;
  }

  // Groups are dealt out to the pipelines; where experts are spread all take part in each round, so
  // that some may look at the last group again.
  std::vector<double> losses(std::span<const LossRows> groups) override {
    const HoldingBaton holding(baton());
    const auto n = static_cast<Index>(groups.size());
    const Index n_pipelines = mesh_.shape().n_data_ranks();
    std::vector<double> losses(groups.size());
    for (Index round = 0; round < n; round += n_pipelines) {
      const Index own = round + mesh_.data_rank();
      if (own >= n && !experts_) break;
      const LossRows& rows = groups[static_cast<std::size_t>(std::min(own, n - 1))];
      const std::optional<double> loss =
          pipeline_loss(state_.model, mesh_.pipeline(), stages_, rows.tokens, rows.starts);
      if (loss && own < n) losses[static_cast<std::size_t>(own)] = *loss;
    }
    all_reduce(world_, View1<double>(losses.data(), {n}));  // each is of one rank, 0 of others
    return losses;
  }

  // The same on every pipeline; those that share experts look together.
  std::optional<NonFiniteOutput> non_finite_output(const LossRows& row) override {
    const HoldingBaton holding(baton());
    return pipeline_non_finite_output(state_.model, mesh_.pipeline(), stages_, row.tokens,
                                      row.starts);
  }

  // By the rank of the last stage, which has the head and the modules, of the first pipelines.
  Acceptance acceptance(const std::vector<HeldOutRows>& held_out, Index sequence_length) override {
    const LayerPlacement placement = forward_placement();
    Acceptance acceptance;
    if (mesh_.place().data == 0) {
      const HoldingBaton holding(baton());
      if (mesh_.place().pipeline == placement.caller())
        acceptance = acceptance_as_caller(placement, held_out, sequence_length);
      else
        hold_layers(mesh_.pipeline(), placement.caller(), settings_.timeout, [&](const auto&) {
          return HeldLayers{&state_.model, placement};
        });
      world_.set_progress(state_.step, "held-out loss");
    }
    const int from = world_rank_of(mesh_.shape(), {.pipeline = placement.caller()});
    Request request = world_.broadcast(std::as_writable_bytes(std::span(&acceptance, 1)), from);
    wait(request);
    return acceptance;
  }

  void with_average(FunctionRef<void()> f) override {
    replicas_.gather_average();
    with_average_of(state_, f);
    replicas_.release_average();
  }

  void with_part(FunctionRef<void(const StatePart&)> f) override {
    const std::map<std::string, int> writing = writers(settings_.layout, state_.config.whole());
    replicas_.gather_moments(writing);
    if (state_.ema) replicas_.gather_average();
    f(own_part(writing, world_.rank()));
    replicas_.release_moments();
    if (state_.ema) replicas_.release_average();
  }

  void with_weights(FunctionRef<void(StateTensors&)> f) override {
    if (state_.ema) replicas_.gather_average();
    with_spread_tensors(world_, settings_.layout, state_, f);
    if (state_.ema) replicas_.release_average();
  }

  Timeline* timeline() override { return &timeline_; }

  std::uint64_t bytes_sent() const override {
    std::uint64_t bytes = replicas_.bytes_sent() + mesh_.pipeline().bytes_sent();
    if (!experts_) return bytes;
    const ExchangeTraffic& traffic = experts_->traffic();
    for (const LinkBytes* link : {&traffic.dispatch, &traffic.combine, &traffic.routing})
      bytes += link->between_nodes + link->inside_node;
    return bytes;
  }

 private:
  // The whole model, so that terms may be added as they come.
  bool is_one_stage() const {
    return state_.config.holds_all() && !has_two_phases(settings_.layout.schedule);
  }
  // The halves of a pair hide the exchanges of each other.
  Baton* baton() {
    const bool pairs = has_two_phases(settings_.layout.schedule) && mesh_.shape().expert > 1;
    return pairs ? &baton_ : nullptr;
  }
  // The ranks of a pipeline that compute its stages forward.
  LayerPlacement forward_placement() const {
    LayerPlacement placement{stages_, {}};
    for (std::size_t s = 0; s < stages_.size(); ++s)
      placement.ranks.push_back(forward_holder(static_cast<int>(s), mesh_.shape().pipeline));
    return placement;
  }

  Acceptance acceptance_as_caller(const LayerPlacement& placement,
                                  const std::vector<HeldOutRows>& held_out, Index sequence_length) {
    if (mesh_.shape().pipeline == 1)
      return held_out_acceptance(state_.model, held_out, sequence_length);
    LayerCaller layers(mesh_.pipeline(), settings_.timeout);
    layers.call_to_load(placement);
    layers.wait_until_loaded();
    state_.model.layer_ranks = &layers;
    const Acceptance acceptance = held_out_acceptance(state_.model, held_out, sequence_length);
    state_.model.layer_ranks = nullptr;
    layers.end();
    return acceptance;
  }

  const StageRange& range_of(const StageTerm& term) const {
    return stages_[static_cast<std::size_t>(term.stage)];
  }

  RankedResult start_results(Index n_micro_batches) const {
    PassResult empty = start_result(state_.model, whole_model(state_.config));
    empty.mtp_k.resize(static_cast<std::size_t>(state_.config.num_nextn_predict_layers));
    const MeshPlace& place = mesh_.place();
    const bool first =
        place.data == 0 && first_holder(settings_.layout, place.pipeline) == place.pipeline;
    return {std::move(empty), n_micro_batches, first};
  }

  // Some of the own micro-batches, through the pipeline.
  void pass(View2<const std::int32_t> tokens, const BatchSettings& settings,
            IndexRange micro_batches, RankedResult& results) {
    const Index micro = tokens.extent(0) / (n_own_ * mesh_.shape().n_data_ranks());
    const Index first_row = micro_batches.begin * micro, n_rows = micro_batches.size() * micro;
    ModelStagesSettings own{
        .loss = {.mtp_lambda = settings.mtp_lambda,
                 .alpha = settings.alpha,
                 .share = static_cast<double>(micro) / static_cast<double>(tokens.extent(0)),
                 .balance_scope = settings.balance_scope,
                 .starts = starts_of_rows(settings.starts, first_row, n_rows)},
        .micro_batch_rows = micro,
        .order = settings_.order,
        .boundary = boundary_format(state_.model.compute)};
    if (experts_ && settings_.order == GradientOrder::Fixed) own.n_sources = experts_->size();
    const Schedule schedule =
        make_schedule(settings_.layout.schedule, mesh_.shape().pipeline, micro_batches.size());
    ModelStages stages(schedule, mesh_.place().pipeline, stages_, state_.model,
                       tokens.rows(first_row, n_rows), own);
    run_pipeline(schedule, mesh_.pipeline(), stages, {.timeline = &timeline_, .baton = baton()});
    for (int phase = 0; phase < schedule.n_phases(); ++phase) {
      const auto number = [&](std::size_t chunk) {
        return micro_batches.begin + index_of(schedule, {phase, static_cast<int>(chunk)});
      };
      for (std::size_t i = 0; i < stages.results(phase).size(); ++i)
        results.add(number(i), stages.results(phase)[i]);
      for (std::size_t i = 0; i < stages.gradients(phase).size(); ++i)
        keep({schedule.stage(mesh_.place().pipeline, phase), number(i),
              std::move(stages.gradients(phase)[i])});
    }
  }

  // In the fixed order the sum begins with the terms of the first rank.
  void keep(StageTerm term) {
    if (settings_.order == GradientOrder::Fast) join_embedding(term.gradients);
    if (is_one_stage() && mesh_.data_rank() == 0 && !terms_.empty())
      add(state_.config, range_of(term), std::move(term.gradients), terms_.front().gradients);
    else
      terms_.push_back(std::move(term));
  }

  // One gradient of the embedding travels, whichever stages of this rank use it.
  void join_embedding(StageGradients& gradients) {
    join_uses(gradients);
    Tensor* const own = embedding_of(gradients);
    for (StageTerm& kept : terms_) {
      Tensor* const sum = embedding_of(kept.gradients);
      if (!own || !sum) continue;
      add(*own, *sum);
      *own = {};
      return;
    }
  }

  Communicator& world_;
  TrainState& state_;
  const RankedSettings settings_;
  const Mesh mesh_;
  const std::vector<StageRange> stages_;
  ReplicaSets replicas_;
  Baton baton_;
  Timeline timeline_;
  std::optional<OverlappingCommunicator> exchange_;
  std::optional<ExpertGroup> experts_;
  std::vector<StageTerm> terms_;  // of the step
  Index n_own_ = 0;               // micro-batches of the step
};

}  // namespace

std::unique_ptr<StepForm> ranked_step(Communicator& world, TrainState& state,
                                      const RankedSettings& settings) {
  return std::make_unique<RankedStep>(world, state, settings);
}

GradientOrder parse_reduction_order(std::string_view name) {
  if (name == "fast") return GradientOrder::Fast;
  if (name == "fixed") return GradientOrder::Fixed;
  throw ConfigError(fmt::format("parallel.reduction is '{}', but must be fast or fixed", name));
}

}  // namespace minke
