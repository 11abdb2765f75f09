// The tensors of a training state, asked for one by one when they are written: from the memory of
// this rank, or from the ranks that hold parts of the model (train/spread_tensors.h).
#pragma once
#include <map>
#include <string>

#include "train/train_state.h"

namespace minke {

enum class StateKind : std::uint8_t { Master, FirstMoment, SecondMoment, Average };

class StateTensors {
 public:
  virtual ~StateTensors() = default;
  // Stays until the next one is asked for. Of biases there are no moments.
  virtual const Tensor& get(StateKind kind, const ParameterSpec& spec) = 0;
};

// Those of a state in this process, which must outlive it.
class LocalTensors final : public StateTensors {
 public:
  explicit LocalTensors(TrainState& state);
  const Tensor& get(StateKind kind, const ParameterSpec& spec) override;

 private:
  std::map<std::string, const Tensor*> tensors_[4];  // by kind and name
};

// Element type of the tensors of a state.
DType dtype_in(const TrainState& state, StateKind kind, const ParameterSpec& spec);

}  // namespace minke
