// Some training steps on given tokens, with everything they compute written to one safetensors
// file: what `minke step` does. Names are those of tests/golden/README.md, "Training cases".
//
// What one implementation is compared with must round less than the ones compared: a step is
// computed in double unless `compute` says otherwise. (Adam divides a gradient by its own size, so
// that FP32 noise in a gradient of nearly zero becomes a step of nearly lr.) Real is F64 then, F32
// otherwise.
//
//   stepn.loss.total, .main, .mtp, .mtp.k, .balance, stepn.grad_norm   F64 [1], every step n
//   stepn.load.layers.i                                                I64 [E], every step
//   stepn.model.layers.i.mlp.gate.e_score_correction_bias              Real [E], every step
//   step1.NAME, stepN.NAME       all parameters after the first and the last step, Real
//   grad.NAME                    gradients of step 1, before clipping, Real
//   balance.layers.i.scores Real [B, T', E], .f, .P F64 [B, E]         step 1
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/options.h"
#include "train/optimizer.h"

namespace minke {

struct StepSettings {
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0, clip = 0;
  double alpha = 0, gamma = 0, mtp_lambda = 0;
  std::string compute = "fp64";
  std::optional<std::string> moments;  // absent: fp64 with compute fp64, else fp32

  template <class Visitor>
  void visit(Visitor& field) {
    const OptionLimits beta = between(0, 1 - 0x1p-53);
    field("lr", lr, "learning rate", at_least(0));
    field("beta1", beta1, "decay of the first moment", beta);
    field("beta2", beta2, "decay of the second moment", beta);
    field("eps", eps, "added to the root of the second moment", at_least(0));
    field("weight_decay", weight_decay, "decoupled decay of matrices", at_least(0));
    field("clip", clip, "largest norm of all gradients", above(0));
    field("alpha", alpha, "factor of the sequence-wise balance loss", at_least(0));
    field("gamma", gamma, "step of the router's biases", at_least(0));
    field("mtp_lambda", mtp_lambda, "factor of the multi-token prediction loss", at_least(0));
    field("moments", moments, "element type of AdamW's moments", one_of({"bf16", "fp32", "fp64"}));
    field("compute", compute, "fp64: everything in double; else the arithmetic of products",
          one_of({"bf16", "fp8", "fp32", "fp64"}));
  }

  // Every key but moments and compute must be there. ConfigError naming file and key.
  static StepSettings load(const std::filesystem::path& path);
};

// Reads I64 `tokens` [>= n_steps, B, T+1] from `batch`. FormatError naming file and tensor for
// another type or rank, for too few steps or positions, and for an id outside the vocabulary.
void record_steps(const std::filesystem::path& model, const std::filesystem::path& batch,
                  std::int64_t n_steps, const StepSettings& settings,
                  const std::filesystem::path& out);

}  // namespace minke
