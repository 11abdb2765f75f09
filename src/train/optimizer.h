// AdamW over all tensors of a model (ops/adamw.h has the update of one), and clipping by the norm
// of all gradients together:
//   norm = sqrt(sum g^2);   g <- g min(1, clip / (norm + 1e-6))
// Masters and gradients are FP32 or, both, double. Decay acts on all tensors whose names match no
// pattern of `no_decay`: by default on every matrix (embedding, head and router included), not on
// norm vectors. Biases of the router have no gradient and are left alone (train/balance.h moves
// them).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/parameters.h"
#include "ops/adamw.h"

namespace minke {

// Element type of both moments. BF16 as in the report, 3.3.2: half the memory. FP64 goes with
// masters and gradients in double alone.
enum class MomentType : std::uint8_t { Bf16, Fp32, Fp64 };
MomentType parse_moment_type(std::string_view name);  // "bf16", "fp32", "fp64"
std::string_view name_of(MomentType type);
DType dtype_of_moments(MomentType type);

struct Moments {
  ModelParameters<Tensor> first, second;  // undefined for the router's biases
  MomentType type = MomentType::Bf16;
};
Moments zero_moments(const ModelConfig& config, MomentType type);

// Every norm vector.
inline std::vector<std::string> default_no_decay() {
  return {"*norm.weight"};
}

struct OptimizerSettings {
  double lr = 0;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1;  // 0: gradients are not clipped
  // As of a shell: * any letters, ? one, [a-z] one of them.
  std::vector<std::string> no_decay = default_no_decay();
};

// ConfigError naming a pattern that no tensor of the model has.
void check_no_decay(const ModelConfig& config, const std::vector<std::string>& patterns);

// In double, summed over pieces of fixed size in a fixed order: the same bits on any number of
// threads. NaN or infinity when a gradient holds one.
double gradient_norm(const ModelConfig& config, ModelParameters<Tensor>& gradients);

// The update of tensors that decay, number `step` (from 1): clipped as the whole gradient's `norm`
// calls for.
AdamW adamw_of(const OptimizerSettings& settings, std::int64_t step, double norm);
// Whether weight decay acts on the tensor of that published name.
bool decays(const std::vector<std::string>& no_decay, const std::string& name);

// Update number `step` (from 1). `norm` is gradient_norm of the gradients, which are zero
// afterwards.
void optimizer_step(const ModelConfig& config, const OptimizerSettings& settings, std::int64_t step,
                    double norm, ModelParameters<Tensor>& gradients, Moments& moments,
                    ModelParameters<Tensor>& masters);

}  // namespace minke
