#include "train/step_form.h"

#include "train/held_out_acceptance.h"

namespace minke {
namespace {

class OneRankStep final : public StepForm {
 public:
  explicit OneRankStep(TrainState& state) : state_(state) {}

  bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                  FunctionRef<bool()> stop, PassResult& result) override {
    return accumulate_gradients(state_, tokens, settings, stop, result);
  }
  std::vector<NamedParameter<Tensor>> gradients() override {
    return list_parameters(state_.config, state_.gradients);
  }
  double gradient_norm() override { return minke::gradient_norm(state_.config, state_.gradients); }
  void show_gradients() override {}
  void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
             double norm) override {
    apply_gradients(state_, settings, gamma, result, norm);
  }
  void skip() override { skip_step(state_); }
  std::vector<double> losses(std::span<const LossRows> groups) override {
    std::vector<double> losses;
    for (const LossRows& rows : groups)
      losses.push_back(evaluate_loss(state_.model, rows.tokens, rows.starts));
    return losses;
  }
  std::optional<NonFiniteOutput> non_finite_output(const LossRows& row) override {
    return find_non_finite_output(state_.model, row.tokens, row.starts);
  }
  Acceptance acceptance(const std::vector<HeldOutRows>& held_out, Index sequence_length) override {
    return held_out_acceptance(state_.model, held_out, sequence_length);
  }
  void with_average(FunctionRef<void()> f) override { with_average_of(state_, f); }
  void with_part(FunctionRef<void(const StatePart&)> f) override { f({}); }
  void with_weights(FunctionRef<void(StateTensors&)> f) override {
    LocalTensors tensors(state_);
    f(tensors);
  }
  Timeline* timeline() override { return nullptr; }
  std::uint64_t bytes_sent() const override { return 0; }

 private:
  TrainState& state_;
};

}  // namespace

std::unique_ptr<StepForm> one_rank_step(TrainState& state) {
  return std::make_unique<OneRankStep>(state);
}

void with_average_of(TrainState& state, FunctionRef<void()> f) {
  ModelParameters<Tensor> wide;
  refresh(state.model, ema_in_fp32(state.config, *state.ema, wide));
  f();
  refresh(state.model, state.masters);
}

}  // namespace minke
