// The dispatch of one MoE layer and micro-batch whose experts are spread over ranks: what
// model/dispatch.h says, over one hop or two (parallel/expert_group.h).
//
//   plan               integers: counts, then the choices of every token that goes out
//   send               rows to experts: a token once to each rank; there a row for each expert
//   combine            rows back, and their weighted sum
//   combine_backward   dy as send does, with the gate weights
//   send_backward      as combine, weights 1; gradients of the gate weights, sent before
//
// Rows here are sorted by (expert, source rank, token). Every function is collective, and each rank
// calls those of one dispatch in the same order; of several dispatches in any. What a rank waits
// for it waits for in wait() of parallel/communicator.h. The arrived inputs are kept for
// send_again.
#pragma once
#include <optional>
#include <variant>
#include <vector>

#include "model/dispatch.h"
#include "parallel/expert_group.h"

namespace minke {

class ExpertExchange : public Dispatch {
 public:
  explicit ExpertExchange(ExpertGroup& group);

  void plan(View2<const std::int32_t> indices, Index n_experts) override;
  std::span<const Index> offsets() const override { return offsets_; }
  std::span<const Index> segments() const override { return segments_; }
  Index n_sources() const override { return group_.size(); }

  void begin_send(View2<const float> x) override { begin_inputs(x); }
  void begin_send(View2<const double> x) override { begin_inputs(x); }
  void begin_send(View2<const BF16> x) override { begin_inputs(x); }
  void begin_send(const Fp8View& x) override;
  Tensor send(View2<const float> x) override { return inputs(x); }
  Tensor send(View2<const double> x) override { return inputs(x); }
  Tensor send(View2<const BF16> x) override { return inputs(x); }
  Fp8Rows send(const Fp8View& x) override;
  Tensor send_again(View2<const float>) override { return inputs_again<float>(); }
  Tensor send_again(View2<const double>) override { return inputs_again<double>(); }
  Tensor send_again(View2<const BF16>) override { return inputs_again<BF16>(); }
  Fp8Rows send_again(const Fp8View&) override;

  void begin_combine(View2<const float> weights) override { begin_sums(weights); }
  void begin_combine(View2<const double> weights) override { begin_sums(weights); }
  void combine(View2<const float> rows, View2<const float> weights, View2<float> y) override {
    combine_rows(rows, weights, y);
  }
  void combine(View2<const double> rows, View2<const double> weights, View2<double> y) override {
    combine_rows(rows, weights, y);
  }
  void combine_backward(View2<const float> dy, View2<const float> rows, View2<const float> weights,
                        View2<float> drows, View2<float> dweights) override {
    combine_rows_backward(dy, rows, weights, drows, dweights);
  }
  void combine_backward(View2<const float> dy, View2<const float> rows, View2<const float> weights,
                        View2<BF16> drows, View2<float> dweights) override {
    combine_rows_backward(dy, rows, weights, drows, dweights);
  }
  void combine_backward(View2<const double> dy, View2<const double> rows,
                        View2<const double> weights, View2<double> drows,
                        View2<double> dweights) override {
    combine_rows_backward(dy, rows, weights, drows, dweights);
  }
  void begin_send_backward(View2<const float> drows) override { begin_home(drows, nullptr); }
  void begin_send_backward(View2<const double> drows) override { begin_home(drows, nullptr); }
  void send_backward(View2<const float> drows, View2<float> dx) override {
    add_inputs_gradient(drows, dx);
  }
  void send_backward(View2<const double> drows, View2<double> dx) override {
    add_inputs_gradient(drows, dx);
  }

 private:
  using Moving = TokenHop::Moving;
  struct MovingTokens {
    Moving values;
    std::optional<Moving> scales;
  };

  void sort_arrived(const TokenChoices& arrived);
  Tensor arrived(Moving moving);

  MovingTokens start(std::size_t hop, TokenRows rows, LinkBytes& bytes);
  TokenRows finish(MovingTokens moving);
  TokenRows to_experts(MovingTokens first_hop, LinkBytes& bytes);
  template <class T>
  void begin_inputs(View2<const T> x);
  template <class T>
  Tensor inputs(View2<const T> x);
  template <class T>
  Tensor inputs_again();
  template <class T>
  Tensor expanded(const TokenRows& arrived) const;
  template <class Real>
  void begin_weights(View2<const Real> weights);
  template <class Real>
  Tensor expanded_weights(View2<const Real> weights);

  template <class Real>
  RowSums<Real> held_choices(const Tensor* weights) const;
  template <class Real>
  Tensor sums_here(View2<const Real> rows, const Tensor* weights) const;
  template <class Real>
  void begin_home(View2<const Real> rows, const Tensor* weights);
  Tensor choices_home(Moving last_hop, LinkBytes& bytes);
  template <class Real>
  void add_sums_home(Moving last_hop, View2<Real> y);

  template <class Real>
  void begin_sums(View2<const Real> weights) {
    if (group_.form().sums) begin_weights(weights);
  }
  template <class Real>
  void combine_rows(View2<const Real> rows, View2<const Real> weights, View2<Real> y);
  template <class Real, class To>
  void combine_rows_backward(View2<const Real> dy, View2<const Real> rows,
                             View2<const Real> weights, View2<To> drows, View2<Real> dweights);
  template <class Real>
  void finish_weights_gradient();
  template <class Real>
  void add_inputs_gradient(View2<const Real> drows, View2<Real> dx);

  ExchangeTraffic& traffic() { return group_.traffic(); }

  ExpertGroup& group_;
  std::vector<TokenHop> hops_;
  Index per_token_ = 0, n_arrived_ = 0;
  std::vector<Index> offsets_, segments_;
  ExpertOrder expand_;                   // token[row]: which of the arrived tokens
  ExpertOrder by_token_;                 // row of every choice held here, by arrived token and k
  BlockVector<Index> first_choice_;      // [arrived + 1]: the choices of a token
  std::vector<std::int32_t> weight_of_;  // of every such choice: its place in [arrived, K]
  TokenRows inputs_;                     // arrived, kept for B
  Tensor weights_;                       // [arrived, K], once they were sent
  std::vector<Moving> leaving_;
  std::optional<MovingTokens> moving_inputs_, moving_weights_;
  std::optional<Moving> moving_home_, moving_dweights_;
  std::variant<View2<float>, View2<double>> dweights_;  // where the last go
};

// For ModelOf::make_dispatch.
DispatchFactory exchange_over(ExpertGroup& group);

}  // namespace minke
