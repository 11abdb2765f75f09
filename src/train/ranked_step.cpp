#include "train/ranked_step.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"
#include "parallel/agreement.h"
#include "parallel/shard_states.h"
#include "train/ranked_result.h"

namespace minke {
namespace {

// The tensors that have a gradient, in the order of visit_parameters.
std::vector<Tensor*> trained(const ModelConfig& config, ModelParameters<Tensor>& parameters) {
  std::vector<Tensor*> tensors;
  for (const auto& [spec, leaf] : list_parameters(config, parameters))
    if (spec.role != Role::Bias) tensors.push_back(leaf);
  return tensors;
}

std::vector<ShardedTensor> sharded_tensors(TrainState& state,
                                           const std::vector<std::string>& no_decay) {
  const ModelPieces pieces = pieces_of_model(state.config);
  std::vector<ShardedTensor> tensors;
  for (const auto& [spec, leaf] : list_parameters(state.config, state.masters))
    if (spec.role != Role::Bias)
      tensors.push_back({.name = spec.name,
                         .weight = leaf,
                         .decays = decays(no_decay, spec.name),
                         .first_piece = pieces.first.at(spec.name)});
  return tensors;
}

// f(begin, end) on pieces of tensor `t`, for all tensors.
template <class F>
void for_pieces(const std::vector<Tensor*>& tensors, F f) {
  std::vector<Index> sizes;
  for (const Tensor* tensor : tensors) sizes.push_back(tensor->size());
  const std::vector<Piece> pieces = cut_into_pieces(sizes);
  parallel_for(static_cast<Index>(pieces.size()),
               [&](Index i) { f(pieces[static_cast<std::size_t>(i)]); });
}

View1<float> part(Tensor* tensor, const Piece& piece) {
  return tensor->flat().slice(0, piece.begin, piece.count);
}

void set_zero(const std::vector<Tensor*>& tensors) {
  for_pieces(tensors, [&](const Piece& piece) {
    std::fill_n(part(tensors[piece.tensor], piece).data(), piece.count, 0.0F);
  });
}

// sum += term; term = 0.
void move_into(const std::vector<Tensor*>& term, const std::vector<Tensor*>& sum) {
  for_pieces(term, [&](const Piece& piece) {
    const View1<float> from = part(term[piece.tensor], piece), to = part(sum[piece.tensor], piece);
    for (Index i = 0; i < piece.count; ++i) {
      to(i) += from(i);
      from(i) = 0;
    }
  });
}

class RankedStep final : public StepForm {
 public:
  RankedStep(Communicator& world, TrainState& state, const RankedSettings& settings)
      : world_(world),
        state_(state),
        order_(settings.order),
        moments_(state.moments.first.norm.dtype()),
        n_pieces_(pieces_of_model(state.config).count),
        optimizer_(world, sharded_tensors(state, settings.no_decay), {.moments = moments_}) {
    take_moments(whole_moments(), optimizer_);
    release_moments();
  }

  bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                  FunctionRef<bool()> stop, PassResult& result) override {
    if (any_of_ranks(world_, stop())) return false;
    const Index B = tokens.extent(0);
    const Index micro = settings.micro_batch > 0 ? settings.micro_batch : B;
    const IndexRange own = share_of(B / micro, world_.size(), world_.rank());
    MINKE_ASSERT(own.size() * micro * world_.size() == B);
    RankedResult results;
    n_terms_ = 0;
    for (Index m = own.begin; m < own.end; ++m) {
      const LossSettings loss{.mtp_lambda = settings.mtp_lambda,
                              .alpha = settings.alpha,
                              .share = static_cast<double>(micro) / static_cast<double>(B),
                              .balance_scope = settings.balance_scope,
                              .starts = starts_of_rows(settings.starts, m * micro, micro)};
      results.add(
          forward_backward(state_.model, tokens.rows(m * micro, micro), loss, next_buffer()));
      fold_first();
    }
    result = std::move(results).joined(world_);
    return true;
  }

  double gradient_norm() override {
    std::vector<std::vector<Tensor*>> terms;
    for (std::size_t i = 0; i < n_terms_; ++i) terms.push_back(trained(state_.config, buffer(i)));
    optimizer_.reduce_gradients(terms);
    for (const std::vector<Tensor*>& term : terms) set_zero(term);
    n_terms_ = 0;
    return minke::gradient_norm(world_, optimizer_.squares(), n_pieces_);
  }

  void show_gradients() override {
    optimizer_.gather_gradients(trained(state_.config, state_.gradients));
    shown_ = true;
  }

  void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
             double norm) override {
    hide_gradients();
    optimizer_.update(adamw_of(settings, next_update(state_), norm));
    optimizer_.gather_weights();
    finish_update(state_, gamma, result);
  }

  void skip() override {
    hide_gradients();
    ++state_.step;
    ++state_.skipped;
  }

  void gather_moments() override {
    if (world_.rank() == 0)
      state_.moments = zero_moments(state_.config,
                                    moments_ == DType::BF16 ? MomentType::Bf16 : MomentType::Fp32);
    minke::gather_moments(world_, optimizer_,
                          world_.rank() == 0 ? whole_moments() : WholeMoments{});
  }
  void release_moments() override { state_.moments = {}; }

 private:
  WholeMoments whole_moments() {
    return {trained(state_.config, state_.moments.first),
            trained(state_.config, state_.moments.second)};
  }

  // Of the micro-batches of a step; the first one is the state's own.
  ModelGradients& buffer(std::size_t i) {
    if (i == 0) return state_.gradients;
    while (more_.size() < i) more_.push_back(zero_parameters(state_.config));
    return more_[i - 1];
  }
  ModelGradients& next_buffer() {
    if (order_ == ReductionOrder::Fixed || n_terms_ == 0) ++n_terms_;
    return buffer(n_terms_ - 1);
  }
  // In the fixed order the sum begins with the terms of rank 0.
  void fold_first() {
    if (world_.rank() > 0 || n_terms_ < 2) return;
    move_into(trained(state_.config, buffer(1)), trained(state_.config, buffer(0)));
    n_terms_ = 1;
  }
  void hide_gradients() {
    if (shown_) set_zero(trained(state_.config, state_.gradients));
    shown_ = false;
  }

  Communicator& world_;
  TrainState& state_;
  const ReductionOrder order_;
  const DType moments_;
  const Index n_pieces_;
  ShardedOptimizer optimizer_;
  std::vector<ModelGradients> more_;  // zero between steps, as state.gradients
  std::size_t n_terms_ = 0;           // buffers in use
  bool shown_ = false;
};

}  // namespace

ReductionOrder parse_reduction_order(std::string_view name) {
  if (name == "fast") return ReductionOrder::Fast;
  if (name == "fixed") return ReductionOrder::Fixed;
  throw ConfigError(fmt::format("parallel.reduction is '{}', but must be fast or fixed", name));
}

std::unique_ptr<StepForm> ranked_step(Communicator& world, TrainState& state,
                                      const RankedSettings& settings) {
  return std::make_unique<RankedStep>(world, state, settings);
}

void check_micro_batches(const Recipe& recipe, int n_ranks) {
  const DataRecipe& data = recipe.data;
  if (data.micro_batch == 0 && n_ranks > 1)
    throw ConfigError(fmt::format(
        "data.micro_batch is 0, but {} ranks share out micro-batches; set it to at most {}",
        n_ranks, std::max<Index>(data.batch_size / n_ranks, 1)));
  const Index unit = data.micro_batch * n_ranks;
  const auto check = [&](const char* name, Index rows) {
    if (unit == 0 || rows % unit == 0) return;
    const Index below = rows / unit * unit, above = below + unit;
    throw ConfigError(fmt::format(
        "{} is {}, but must be a multiple of data.micro_batch times ranks = {} x {}, so that each "
        "rank has as many micro-batches: {}{}",
        name, rows, data.micro_batch, n_ranks, below > 0 ? fmt::format("{} or ", below) : "",
        above));
  };
  check("data.batch_size", data.batch_size);
  if (recipe.batch_ramp.from == 0) return;
  check("batch_ramp.from", recipe.batch_ramp.from);
  check("batch_ramp.multiple", recipe.batch_ramp.multiple);
}

}  // namespace minke
