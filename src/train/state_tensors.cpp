#include "train/state_tensors.h"

namespace minke {

LocalTensors::LocalTensors(TrainState& state) {
  const auto add = [&](StateKind kind, ModelParameters<Tensor>& parameters) {
    for (const auto& [spec, leaf] : list_parameters(state.config, parameters))
      tensors_[static_cast<std::size_t>(kind)][spec.name] = leaf;
  };
  add(StateKind::Master, state.masters);
  add(StateKind::FirstMoment, state.moments.first);
  add(StateKind::SecondMoment, state.moments.second);
  if (state.ema) add(StateKind::Average, state.ema->weights);
}

const Tensor& LocalTensors::get(StateKind kind, const ParameterSpec& spec) {
  return *tensors_[static_cast<std::size_t>(kind)].at(spec.name);
}

DType dtype_in(const TrainState& state, StateKind kind, const ParameterSpec& spec) {
  if (kind == StateKind::Master) return DType::F32;
  if (kind == StateKind::Average) return spec.shape.size() == 1 ? DType::F32 : state.ema->matrices;
  return dtype_of_moments(state.moments.type);
}

}  // namespace minke
