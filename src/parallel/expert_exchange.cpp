#include "parallel/expert_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace minke {
namespace {

std::size_t at(Index i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

ExpertExchange::ExpertExchange(ExpertGroup& group) : group_(group) {
  const int tag = group.next_tag();
  for (const HopRoute& route : group.hops()) hops_.emplace_back(route, tag);
}

void ExpertExchange::plan(View2<const std::int32_t> indices, Index n_experts) {
  MINKE_ASSERT(n_experts == group_.n_experts());
  TokenChoices tokens{indices.extent(0), indices.extent(1), {}, {}};
  tokens.experts.reserve(at(indices.size()));
  for (Index t = 0; t < tokens.n_tokens; ++t)
    for (Index k = 0; k < tokens.per_token; ++k) {
      const std::int32_t expert = indices(t, k);
      if (expert < 0 || expert >= n_experts)
        throw ShapeError(fmt::format("token {} chose expert {} of {}", t, expert, n_experts));
      tokens.experts.push_back(expert);
    }
  tokens.sources.assign(at(tokens.n_tokens), group_.rank());
  for (TokenHop& hop : hops_) tokens = hop.plan(tokens, traffic().routing);
  sort_arrived(tokens);
}

// One counting sort by (expert, source); tokens arrive in the order that they have at their source.
void ExpertExchange::sort_arrived(const TokenChoices& arrived) {
  const ExpertRange held = group_.held();
  const Index S = n_sources();
  per_token_ = arrived.per_token;
  n_arrived_ = arrived.n_tokens;
  std::vector<Index> bin_of;  // of every choice held here
  first_choice_.assign(1, 0);
  for (Index a = 0; a < n_arrived_; ++a) {
    for (Index k = 0; k < per_token_; ++k) {
      const Index expert = arrived.experts[at(a * per_token_ + k)];
      if (!held.holds(expert)) continue;
      bin_of.push_back((expert - held.first) * S + arrived.sources[at(a)]);
      weight_of_.push_back(static_cast<std::int32_t>(a * per_token_ + k));
    }
    first_choice_.push_back(static_cast<Index>(bin_of.size()));
  }
  segments_.assign(at(held.size() * S) + 1, 0);
  for (const Index bin : bin_of) ++segments_[at(bin) + 1];
  std::partial_sum(segments_.begin(), segments_.end(), segments_.begin());
  for (Index e = 0; e <= held.size(); ++e) offsets_.push_back(segments_[at(e * S)]);
  std::vector<Index> next(segments_.begin(), segments_.end() - 1);
  expand_.token.resize(bin_of.size());
  BlockVector<std::int32_t> row_of;
  for (std::size_t i = 0; i < bin_of.size(); ++i) {
    const Index row = next[at(bin_of[i])]++;
    expand_.token[at(row)] = static_cast<std::int32_t>(weight_of_[i] / per_token_);
    row_of.push_back(static_cast<std::int32_t>(row));
  }
  by_token_ = order_of(std::move(row_of));
}

// Nobody here waits for rows that leave: they are kept until they have left.
Tensor ExpertExchange::arrived(Moving moving) {
  wait_all(moving.receives);
  std::erase_if(leaving_, [](Moving& m) {
    return std::all_of(m.sends.begin(), m.sends.end(), [](Request& r) { return r->test(); });
  });
  Tensor rows = std::move(moving.arrived);
  leaving_.push_back(std::move(moving));
  return rows;
}

// ---- rows to experts

ExpertExchange::MovingTokens ExpertExchange::start(std::size_t hop, TokenRows rows,
                                                   LinkBytes& bytes) {
  MovingTokens moving{hops_[hop].start_tokens(std::move(rows.values), bytes), std::nullopt};
  if (rows.scales.defined()) moving.scales = hops_[hop].start_tokens(std::move(rows.scales), bytes);
  return moving;
}

TokenRows ExpertExchange::finish(MovingTokens moving) {
  TokenRows rows{arrived(std::move(moving.values)), {}};
  if (moving.scales) rows.scales = arrived(std::move(*moving.scales));
  return rows;
}

TokenRows ExpertExchange::to_experts(MovingTokens first_hop, LinkBytes& bytes) {
  TokenRows rows = finish(std::move(first_hop));
  for (std::size_t i = 1; i < hops_.size(); ++i) {
    TokenRows out = gathered(rows, hops_[i].outgoing());
    rows = finish(start(i, std::move(out), bytes));
  }
  return rows;
}

template <class T>
void ExpertExchange::begin_inputs(View2<const T> x) {
  moving_inputs_ =
      start(0, gathered(x, group_.form().inputs, hops_.front().outgoing()), traffic().dispatch);
}

template <class T>
Tensor ExpertExchange::inputs(View2<const T> x) {
  if (!moving_inputs_) begin_inputs(x);
  inputs_ = to_experts(std::move(*moving_inputs_), traffic().dispatch);
  moving_inputs_.reset();
  return expanded<T>(inputs_);
}

template <class T>
Tensor ExpertExchange::inputs_again() {
  return expanded<T>(std::exchange(inputs_, {}));
}

void ExpertExchange::begin_send(const Fp8View& x) {
  moving_inputs_ = start(0, gathered(x, hops_.front().outgoing()), traffic().dispatch);
}

Fp8Rows ExpertExchange::send(const Fp8View& x) {
  if (!moving_inputs_) begin_send(x);
  inputs_ = to_experts(std::move(*moving_inputs_), traffic().dispatch);
  moving_inputs_.reset();
  TokenRows rows = gathered(inputs_, expand_);
  return {std::move(rows.values), std::move(rows.scales)};
}

Fp8Rows ExpertExchange::send_again(const Fp8View&) {
  TokenRows rows = gathered(std::exchange(inputs_, {}), expand_);
  return {std::move(rows.values), std::move(rows.scales)};
}

template <class T>
Tensor ExpertExchange::expanded(const TokenRows& arrived) const {
  return values_as<T>(gathered(arrived, expand_));
}

template <class Real>
void ExpertExchange::begin_weights(View2<const Real> weights) {
  moving_weights_ = start(0, {gathered(weights, hops_.front().outgoing()), {}}, traffic().routing);
}

// Gate weights of the rows here [rows, 1].
template <class Real>
Tensor ExpertExchange::expanded_weights(View2<const Real> weights) {
  if (!weights_.defined()) {
    if (!moving_weights_) begin_weights(weights);
    weights_ = to_experts(std::move(*moving_weights_), traffic().routing).values;
    moving_weights_.reset();
  }
  Tensor rows = Tensor::uninitialized<Real>({static_cast<Index>(expand_.token.size()), 1});
  const View1<const Real> all = std::as_const(weights_).flat<Real>();
  for (std::size_t i = 0; i < weight_of_.size(); ++i)
    rows.v2<Real>()(by_token_.row[i], 0) = all(weight_of_[i]);
  return rows;
}

// ---- rows back

// The rows of every arrived token, k rising, and their gate weights where they are given.
template <class Real>
RowSums<Real> ExpertExchange::held_choices(const Tensor* weights) const {
  RowSums<Real> sums{first_choice_, by_token_.row, {}};
  if (weights)
    for (const std::int32_t row : by_token_.row) sums.weight.push_back(weights->v2<Real>()(row, 0));
  return sums;
}

// One row for every arrived token, as it travels.
template <class Real>
Tensor ExpertExchange::sums_here(View2<const Real> rows, const Tensor* weights) const {
  Tensor sums = Tensor::zeros<Real>({n_arrived_, rows.extent(1)});
  sum_rows(rows, held_choices<Real>(weights), sums.v2<Real>());
  return narrowed(std::move(sums));
}

// The last hop back. `weights`, of the rows here, are read where sums travel.
template <class Real>
void ExpertExchange::begin_home(View2<const Real> rows, const Tensor* weights) {
  if (group_.form().sums)
    moving_home_ = hops_.back().start_tokens_back(sums_here(rows, weights), traffic().combine);
  else
    moving_home_ = hops_.back().start_choices_back(gathered(rows, by_token_), traffic().combine);
}

// [choices of the tokens of this rank, D], in the order of hops_.front().returned_choices().
Tensor ExpertExchange::choices_home(Moving last_hop, LinkBytes& bytes) {
  Tensor rows = arrived(std::move(last_hop));
  for (std::size_t i = hops_.size() - 1; i-- > 0;)
    rows = arrived(
        hops_[i].start_choices_back(gathered(rows, hops_[i + 1].returned_choices()), bytes));
  return rows;
}

template <class Real>
void ExpertExchange::add_sums_home(Moving last_hop, View2<Real> y) {
  Tensor rows = values_as<Real>({arrived(std::move(last_hop)), {}});
  for (std::size_t i = hops_.size() - 1; i-- > 0;) {
    const RowSums<Real> returned = hops_[i + 1].template returned_tokens<Real>();
    Tensor sums =
        Tensor::zeros<Real>({static_cast<Index>(returned.first.size()) - 1, rows.extent(1)});
    sum_rows(std::as_const(rows).v2<Real>(), returned, sums.v2<Real>());
    Moving next = hops_[i].start_tokens_back(narrowed(std::move(sums)), traffic().combine);
    rows = values_as<Real>({arrived(std::move(next)), {}});
  }
  sum_rows(std::as_const(rows).v2<Real>(), hops_.front().template returned_tokens<Real>(), y);
}

template <class Real>
void ExpertExchange::combine_rows(View2<const Real> rows, View2<const Real> weights,
                                  View2<Real> y) {
  if (group_.form().sums) {
    const Tensor of_rows = expanded_weights(weights);
    begin_home(rows, &of_rows);
    add_sums_home<Real>(std::move(*moving_home_), y);
  } else {
    begin_home(rows, nullptr);
    const Tensor returned = choices_home(std::move(*moving_home_), traffic().combine);
    combine_experts(returned.v2<Real>(), hops_.front().returned_choices(), weights, y);
  }
  moving_home_.reset();
}

// Every row here is a token with one expert: drow = w dy, dw = dy . row.
template <class Real, class To>
void ExpertExchange::combine_rows_backward(View2<const Real> dy, View2<const Real> rows,
                                           View2<const Real> weights, View2<To> drows,
                                           View2<Real> dweights) {
  TokenRows out = gathered(dy, group_.form().gradients, hops_.front().outgoing());
  MovingTokens moving = start(0, std::move(out), traffic().dispatch);
  if (!weights_.defined()) begin_weights(weights);
  const Tensor dy_rows = expanded<Real>(to_experts(std::move(moving), traffic().dispatch));
  const Tensor of_rows = expanded_weights(weights);
  Tensor dof_rows = Tensor::uninitialized<Real>(of_rows.shape());
  BlockVector<std::int32_t> each(expand_.token.size());  // itself
  std::iota(each.begin(), each.end(), 0);
  combine_experts_backward(dy_rows.v2<Real>(), rows, order_of(std::move(each)), of_rows.v2<Real>(),
                           drows, dof_rows.v2<Real>());
  moving_dweights_ =
      hops_.back().start_choices_back(gathered(dof_rows, by_token_), traffic().routing);
  dweights_ = dweights;
}

template <class Real>
void ExpertExchange::finish_weights_gradient() {
  const Tensor returned = choices_home(std::move(*moving_dweights_), traffic().routing);
  moving_dweights_.reset();
  const BlockVector<std::int32_t>& row = hops_.front().returned_choices().row;
  const View2<Real> dweights = std::get<View2<Real>>(dweights_);
  for (Index t = 0; t < dweights.extent(0); ++t)
    for (Index k = 0; k < per_token_; ++k)
      dweights(t, k) = returned.v2<Real>()(row[at(t * per_token_ + k)], 0);
}

template <class Real>
void ExpertExchange::add_inputs_gradient(View2<const Real> drows, View2<Real> dx) {
  if (!moving_home_) begin_home(drows, nullptr);
  finish_weights_gradient<Real>();
  Moving home = std::move(*moving_home_);
  moving_home_.reset();
  if (group_.form().sums) {
    add_sums_home<Real>(std::move(home), dx);
  } else {
    const Tensor returned = choices_home(std::move(home), traffic().combine);
    gather_tokens_backward(returned.v2<Real>(), hops_.front().returned_choices(), dx);
  }
  for (Moving& moving : leaving_) wait_all(moving.sends);
  leaving_.clear();
}

// For what is derived from it.
#define MINKE_EXCHANGE_OF_INPUTS(T)                           \
  template void ExpertExchange::begin_inputs(View2<const T>); \
  template Tensor ExpertExchange::inputs(View2<const T>);     \
  template Tensor ExpertExchange::inputs_again<T>();
MINKE_EXCHANGE_OF_INPUTS(float)
MINKE_EXCHANGE_OF_INPUTS(double)
MINKE_EXCHANGE_OF_INPUTS(BF16)
#undef MINKE_EXCHANGE_OF_INPUTS
#define MINKE_EXCHANGE_OF_GRADIENTS(Real, To)                                               \
  template void ExpertExchange::combine_rows_backward(View2<const Real>, View2<const Real>, \
                                                      View2<const Real>, View2<To>, View2<Real>);
MINKE_EXCHANGE_OF_GRADIENTS(float, float)
MINKE_EXCHANGE_OF_GRADIENTS(float, BF16)
MINKE_EXCHANGE_OF_GRADIENTS(double, double)
#undef MINKE_EXCHANGE_OF_GRADIENTS
#define MINKE_EXCHANGE_OF(Real)                                                                  \
  template void ExpertExchange::begin_weights(View2<const Real>);                                \
  template void ExpertExchange::combine_rows(View2<const Real>, View2<const Real>, View2<Real>); \
  template void ExpertExchange::begin_home(View2<const Real>, const Tensor*);                    \
  template void ExpertExchange::add_inputs_gradient(View2<const Real>, View2<Real>);
MINKE_EXCHANGE_OF(float)
MINKE_EXCHANGE_OF(double)
#undef MINKE_EXCHANGE_OF

DispatchFactory exchange_over(ExpertGroup& group) {
  return [&group](Index) { return std::make_unique<ExpertExchange>(group); };
}

}  // namespace minke
