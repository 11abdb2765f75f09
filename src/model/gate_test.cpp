#include "model/gate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/small_model.h"

namespace minke {
namespace {

constexpr Index kRows = 12, kLength = 4;

// A router in double, and the balance loss of its scores by each scope.
struct Router {
  ModelConfig config = small_config(0);
  MoeWeightsOf<double> w;
  Tensor x = Tensor::uninitialized<double>({kRows, config.hidden_size});

  Router() {
    const auto fill = [](Tensor& t, std::uint64_t seed) {
      Random random(seed);
      for (Index i = 0; i < t.size(); ++i) t.flat<double>()(i) = random.normal();
    };
    w.gate.dense = Tensor::uninitialized<double>({config.n_routed_experts, config.hidden_size});
    w.e_score_correction_bias.dense = Tensor(DType::F64, {config.n_routed_experts});
    fill(w.gate.dense, 1);
    fill(x, 2);
  }

  // The loss, with its gradients where they are wanted.
  BalanceTerm pass(BalanceScope scope, Tensor* dx, Tensor* dgate) const {
    GateSaved saved = gate_forward(config, w, std::make_shared<const Tensor>(x.clone()));
    BalanceTerm term;
    term.alpha = 0.7;
    term.length = scope == BalanceScope::Sequence ? kLength : kRows;
    const Tensor dweights(DType::F64, {kRows, config.num_experts_per_tok});
    Tensor unused(DType::F64, x.shape());
    GateWeightWork work = gate_backward_input<double>(
        config, w, dweights.v2<double>(), std::move(saved), term, (dx ? *dx : unused).v2<double>());
    if (dgate) {
      MoeGradients dw;
      dw.gate = std::move(*dgate);
      gate_backward_weight<double>(std::move(work), dw);
      *dgate = std::move(dw.gate);
    }
    return term;
  }
};

TEST(Gate, GradientsOfBothBalanceLossesAgreeWithCentralDifferences) {
  for (BalanceScope scope : {BalanceScope::Sequence, BalanceScope::MicroBatch}) {
    Router r;
    Tensor dx(DType::F64, r.x.shape()), dgate(DType::F64, r.w.gate.dense.shape());
    r.pass(scope, &dx, &dgate);
    const double h = 1e-6;
    const auto slope = [&](double& value) {
      const double before = value;
      value = before + h;
      const double up = r.pass(scope, nullptr, nullptr).loss;
      value = before - h;
      const double down = r.pass(scope, nullptr, nullptr).loss;
      value = before;
      return (up - down) / (2 * h);
    };
    double largest = 0;
    for (Index i = 0; i < r.x.size(); i += 7) {
      // A loss of about one has 1e-16 of noise, of which the difference makes 1e-10.
      EXPECT_NEAR(dx.flat<double>()(i), slope(r.x.flat<double>()(i)), 1e-9) << "x " << i;
      largest = std::max(largest, std::fabs(dx.flat<double>()(i)));
    }
    for (Index i = 0; i < r.w.gate.dense.size(); i += 5)
      EXPECT_NEAR(dgate.flat<double>()(i), slope(r.w.gate.dense.flat<double>()(i)), 1e-9) << i;
    EXPECT_GT(largest, 1e-5);
  }
}

// f and P of the whole are the means of those of the sequences; the loss is not.
TEST(Gate, TheMicroBatchIsOneSequenceToTheBatchWiseLoss) {
  const Router r;
  const BalanceTerm by_sequence = r.pass(BalanceScope::Sequence, nullptr, nullptr),
                    whole = r.pass(BalanceScope::MicroBatch, nullptr, nullptr);
  ASSERT_EQ(by_sequence.f.extent(0), kRows / kLength);
  ASSERT_EQ(whole.f.extent(0), 1);
  double loss = 0;
  for (Index e = 0; e < r.config.n_routed_experts; ++e) {
    double f = 0, p = 0;
    for (Index b = 0; b < kRows / kLength; ++b) {
      f += by_sequence.f.v2<double>()(b, e) * kLength / kRows;
      p += by_sequence.p.v2<double>()(b, e) * kLength / kRows;
    }
    EXPECT_NEAR(whole.f.v2<double>()(0, e), f, 1e-14);
    EXPECT_NEAR(whole.p.v2<double>()(0, e), p, 1e-14);
    loss += 0.7 * f * p;
  }
  EXPECT_NEAR(whole.loss, loss, 1e-14);
  EXPECT_GT(std::fabs(whole.loss - by_sequence.loss), 1e-4);
}

}  // namespace
}  // namespace minke
