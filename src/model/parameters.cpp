#include "model/parameters.h"

#include <algorithm>

#include "base/files.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/permute.h"

namespace minke {
namespace {

struct Nothing {};

}  // namespace

bool is_routed_expert(const ParameterSpec& spec) {
  return spec.name.find(".mlp.experts.") != std::string::npos;
}

Shape shape_by_source(const ParameterSpec& spec, Index n_sources) {
  Shape shape = spec.shape;
  if (is_routed_expert(spec)) shape.insert(shape.begin(), n_sources);
  return shape;
}

ModelParameters<Tensor> zero_parameters(const ModelConfig& c, DType dtype) {
  ModelParameters<Tensor> p;
  visit_parameters(c, p,
                   [&](const ParameterSpec& spec, Tensor& t) { t = Tensor(dtype, spec.shape); });
  return p;
}

ModelParameters<Tensor> zero_gradients_by_source(const ModelConfig& c, Index n_sources,
                                                 DType dtype) {
  ModelParameters<Tensor> p;
  visit_parameters(c, p, [&](const ParameterSpec& spec, Tensor& t) {
    t = Tensor(dtype, shape_by_source(spec, n_sources));
  });
  return p;
}

ModelParameters<Tensor> widened(const ModelConfig& c, ModelParameters<Tensor>& p) {
  ModelParameters<Tensor> wide = zero_parameters(c, DType::F64);
  const auto from = list_parameters(c, p), to = list_parameters(c, wide);
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::array<Index, 2> row{1, from[i].leaf->size()};
    copy(reshape<2>(std::as_const(*from[i].leaf).flat(), row),
         reshape<2>(to[i].leaf->flat<double>(), row));
  }
  return wide;
}

ModelParameters<Tensor> initial_parameters(const ModelConfig& c, std::uint64_t seed) {
  ModelParameters<Tensor> p = zero_parameters(c);
  const auto list = list_parameters(c, p);
  parallel_for(static_cast<Index>(list.size()), [&](Index i) {
    const auto& [spec, tensor] = list[static_cast<std::size_t>(i)];
    if (spec.role == Role::Bias) return;
    if (spec.role == Role::Norm) {
      fill(reshape<2>(tensor->flat(), {1, tensor->size()}), 1.0f);
      return;
    }
    Random random(seed, hash64(as_byte_span(spec.name)));
    const View1<float> x = tensor->flat();
    for (Index j = 0; j < x.size(); ++j)
      x(j) = static_cast<float>(c.initializer_range * random.normal());
  });
  return p;
}

ParameterCount count_parameters(const ModelConfig& c) {
  ParameterCount n;
  ModelParameters<Nothing> p;
  Index expert = 0;  // parameters of the routed experts of the main model
  std::vector<std::string> mtp_prefixes;
  for (Index k = 0; k < c.num_nextn_predict_layers; ++k)
    mtp_prefixes.push_back(fmt::format("model.layers.{}.", c.num_hidden_layers + k));
  const auto is_mtp = [&](const std::string& name) {
    return std::any_of(mtp_prefixes.begin(), mtp_prefixes.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  };
  visit_parameters(c, p, [&](const ParameterSpec& spec, Nothing&) {
    const Index size = element_count(spec.shape);
    n.total += size;
    if (spec.role == Role::Embedding) n.embedding += size;
    if (spec.role == Role::Head) n.head += size;
    if (is_mtp(spec.name)) {
      n.mtp += size;
    } else if (is_routed_expert(spec)) {
      expert += size;
    }
  });
  n.main = n.total - n.mtp;
  n.active = n.main - n.embedding;
  if (c.n_routed_experts > 0)
    n.active -= expert * (c.n_routed_experts - c.num_experts_per_tok) / c.n_routed_experts;
  return n;
}

}  // namespace minke
