#include "train/optimizer.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"
#include "ops/adamw.h"

namespace minke {
namespace {

// Tensors are cut into pieces that stay in a core's L2 through the update and the zeroing: weight,
// gradient and moments of one piece are at most 512 KiB.
constexpr Index kPiece = 32768;

struct Piece {
  std::size_t tensor;
  Index begin, count;
};

template <class Leaf>
std::vector<Piece> cut(const std::vector<NamedParameter<Leaf>>& tensors) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].spec.role == Role::Bias) continue;
    const Index n = tensors[i].leaf->size();
    for (Index begin = 0; begin < n; begin += kPiece)
      pieces.push_back({i, begin, std::min(kPiece, n - begin)});
  }
  return pieces;
}

template <class T>
View1<T> part(Tensor& tensor, const Piece& piece) {
  const View1<T> all = tensor.rank() == 1
                           ? tensor.view<T, 1>()
                           : reshape<1>(tensor.view<T, 2>(), std::array<Index, 1>{tensor.size()});
  return all.rows(piece.begin, piece.count);
}

double squares(Tensor& tensor, const Piece& piece) {
  return tensor.dtype() == DType::F64 ? sum_of_squares(part<double>(tensor, piece))
                                      : sum_of_squares(part<float>(tensor, piece));
}

// Gradient, weight and both moments of one tensor.
struct Updated {
  Tensor &gradient, &weight, &m, &v;
};

// The update of one piece; its gradient becomes zero.
template <class Real, class Moment>
void update(const AdamW& adamw, const Updated& t, const Piece& piece) {
  const View1<Real> g = part<Real>(t.gradient, piece);
  adamw_update(adamw, g, part<Real>(t.weight, piece), part<Moment>(t.m, piece),
               part<Moment>(t.v, piece));
  std::memset(g.data(), 0, static_cast<std::size_t>(g.size()) * sizeof(Real));
}

void update(const AdamW& adamw, const Updated& t, const Piece& piece) {
  const DType moment = t.m.dtype();
  if (t.weight.dtype() == DType::F64)
    return moment == DType::BF16  ? update<double, BF16>(adamw, t, piece)
           : moment == DType::F32 ? update<double, float>(adamw, t, piece)
                                  : update<double, double>(adamw, t, piece);
  return moment == DType::BF16 ? update<float, BF16>(adamw, t, piece)
                               : update<float, float>(adamw, t, piece);
}

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

bool decays(const std::vector<std::string>& no_decay, const ParameterSpec& spec) {
  return std::none_of(no_decay.begin(), no_decay.end(),
                      [&](const std::string& pattern) { return matches(pattern, spec.name); });
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
  Moments moments;
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
    sums[static_cast<std::size_t>(i)] = squares(*tensors[piece.tensor].leaf, piece);
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

void optimizer_step(const ModelConfig& config, const OptimizerSettings& settings, std::int64_t step,
                    double norm, ModelParameters<Tensor>& gradients, Moments& moments,
                    ModelParameters<Tensor>& masters) {
  const auto gradient = list_parameters(config, gradients);
  const auto first = list_parameters(config, moments.first);
  const auto second = list_parameters(config, moments.second);
  const auto weight = list_parameters(config, masters);
  AdamW with_decay{.lr = settings.lr,
                   .beta1 = settings.beta1,
                   .beta2 = settings.beta2,
                   .eps = settings.eps,
                   .weight_decay = settings.weight_decay,
                   .step = step};
  if (settings.clip > 0) with_decay.gradient_scale = std::min(1.0, settings.clip / (norm + 1e-6));
  AdamW without_decay = with_decay;
  without_decay.weight_decay = 0;
  std::vector<const AdamW*> of_tensor;
  for (const auto& [spec, leaf] : weight)
    of_tensor.push_back(decays(settings.no_decay, spec) ? &with_decay : &without_decay);

  const std::vector<Piece> pieces = cut(weight);
  parallel_for(static_cast<Index>(pieces.size()), [&](Index i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    const std::size_t t = piece.tensor;
    update(*of_tensor[t], {*gradient[t].leaf, *weight[t].leaf, *first[t].leaf, *second[t].leaf},
           piece);
  });
}

}  // namespace minke
