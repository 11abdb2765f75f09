#include "train/optimizer.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "parallel/optimizer_pieces.h"

namespace minke {
namespace {

template <class Leaf>
std::vector<Piece> cut(const std::vector<NamedParameter<Leaf>>& tensors) {
  std::vector<Index> sizes;
  for (const auto& [spec, leaf] : tensors)
    sizes.push_back(spec.role == Role::Bias ? 0 : leaf->size());
  return cut_into_pieces(sizes);
}

void zero(Tensor& tensor, const Piece& piece) {
  const std::size_t size = size_of(tensor.dtype());
  std::memset(static_cast<std::byte*>(tensor.raw()) + static_cast<std::size_t>(piece.begin) * size,
              0, static_cast<std::size_t>(piece.count) * size);
}

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

}  // namespace

MomentType parse_moment_type(std::string_view name) {
  if (name == "bf16") return MomentType::Bf16;
  if (name == "fp32") return MomentType::Fp32;
  if (name == "fp64") return MomentType::Fp64;
  throw ConfigError(fmt::format("moments is '{}', but must be bf16, fp32 or fp64", name));
}

std::string_view name_of(MomentType type) {
  return type == MomentType::Bf16 ? "bf16" : type == MomentType::Fp32 ? "fp32" : "fp64";
}

DType dtype_of_moments(MomentType type) {
  return type == MomentType::Bf16   ? DType::BF16
         : type == MomentType::Fp32 ? DType::F32
                                    : DType::F64;
}

Moments zero_moments(const ModelConfig& config, MomentType type) {
  Moments moments{.first = {}, .second = {}, .type = type};
  for (ModelParameters<Tensor>* m : {&moments.first, &moments.second})
    visit_parameters(config, *m, [&](const ParameterSpec& spec, Tensor& tensor) {
      if (spec.role != Role::Bias) tensor = Tensor(dtype_of_moments(type), spec.shape);
    });
  return moments;
}

double gradient_norm(const ModelConfig& config, ModelParameters<Tensor>& gradients) {
  const auto tensors = list_parameters(config, gradients);
  const std::vector<Piece> pieces = cut(tensors);
  std::vector<double> sums(pieces.size());
  parallel_for(static_cast<Index>(pieces.size()), [&](Index i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    sums[static_cast<std::size_t>(i)] =
        sum_of_squares({tensors[piece.tensor].leaf, piece.begin}, piece.count);
  });
  double sum = 0;
  for (double s : sums) sum += s;
  return std::sqrt(sum);
}

void check_no_decay(const ModelConfig& config, const std::vector<std::string>& patterns) {
  ModelParameters<int> names;
  const auto tensors = list_parameters(config, names);
  for (const std::string& pattern : patterns)
    if (std::none_of(tensors.begin(), tensors.end(),
                     [&](const auto& tensor) { return matches(pattern, tensor.spec.name); }))
      throw ConfigError(fmt::format(
          "optimizer.no_decay: no tensor of the model has a name like '{}'; names are as "
          "in published checkpoints, {} for example",
          pattern, tensors[1].spec.name));
}

bool decays(const std::vector<std::string>& no_decay, const std::string& name) {
  return std::none_of(no_decay.begin(), no_decay.end(),
                      [&](const std::string& pattern) { return matches(pattern, name); });
}

AdamW adamw_of(const OptimizerSettings& settings, std::int64_t step, double norm) {
  AdamW adamw{.lr = settings.lr,
              .beta1 = settings.beta1,
              .beta2 = settings.beta2,
              .eps = settings.eps,
              .weight_decay = settings.weight_decay,
              .step = step};
  if (settings.clip > 0) adamw.gradient_scale = std::min(1.0, settings.clip / (norm + 1e-6));
  return adamw;
}

void optimizer_step(const ModelConfig& config, const OptimizerSettings& settings, std::int64_t step,
                    double norm, ModelParameters<Tensor>& gradients, Moments& moments,
                    ModelParameters<Tensor>& masters) {
  const auto gradient = list_parameters(config, gradients);
  const auto first = list_parameters(config, moments.first);
  const auto second = list_parameters(config, moments.second);
  const auto weight = list_parameters(config, masters);
  const AdamW with_decay = adamw_of(settings, step, norm);
  AdamW without_decay = with_decay;
  without_decay.weight_decay = 0;
  std::vector<const AdamW*> of_tensor;
  for (const auto& [spec, leaf] : weight)
    of_tensor.push_back(decays(settings.no_decay, spec.name) ? &with_decay : &without_decay);

  const std::vector<Piece> pieces = cut(weight);
  parallel_for(static_cast<Index>(pieces.size()), [&](Index i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    const std::size_t t = piece.tensor;
    adamw_update(*of_tensor[t],
                 {.gradient = {gradient[t].leaf, piece.begin},
                  .weight = {weight[t].leaf, piece.begin},
                  .m = {first[t].leaf, piece.begin},
                  .v = {second[t].leaf, piece.begin}},
                 piece.count);
    zero(*gradient[t].leaf, piece);
  });
}

}  // namespace minke
