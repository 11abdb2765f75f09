#include "train/step_form.h"

namespace minke {
namespace {

class OneRankStep final : public StepForm {
 public:
  explicit OneRankStep(TrainState& state) : state_(state) {}

  bool accumulate(View2<const std::int32_t> tokens, const BatchSettings& settings,
                  FunctionRef<bool()> stop, PassResult& result) override {
    return accumulate_gradients(state_, tokens, settings, stop, result);
  }
  double gradient_norm() override { return minke::gradient_norm(state_.config, state_.gradients); }
  void show_gradients() override {}
  void apply(const OptimizerSettings& settings, double gamma, const PassResult& result,
             double norm) override {
    apply_gradients(state_, settings, gamma, result, norm);
  }
  void skip() override { skip_step(state_); }
  void gather_moments() override {}
  void release_moments() override {}

 private:
  TrainState& state_;
};

}  // namespace

std::unique_ptr<StepForm> one_rank_step(TrainState& state) {
  return std::make_unique<OneRankStep>(state);
}

}  // namespace minke
