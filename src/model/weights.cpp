#include "model/weights.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "ops/permute.h"

namespace minke {
namespace {

bool is_matrix(Role role) {
  return role != Role::Norm && role != Role::Bias && role != Role::Embedding;
}

WeightForm training_form(Role role, Compute compute) {
  if (role == Role::Router) return WeightForm::F32;
  return compute == Compute::Fp32 ? WeightForm::F32 : WeightForm::Bf16;
}

// Calls f(spec, master, weight) for every tensor of two parameter sets.
template <class Leaf, class F>
void visit_pairs(const ModelConfig& config, ModelParameters<Tensor>& masters,
                 ModelParameters<Leaf>& weights, F&& f) {
  const auto from = list_parameters(config, masters);
  const auto to = list_parameters(config, weights);
  for (std::size_t i = 0; i < from.size(); ++i) f(from[i].spec, *from[i].leaf, *to[i].leaf);
}

template <class Real>
View2<Real> as_row(Tensor& t) {
  return reshape<2>(t.flat<Real>(), {1, t.size()});
}

bool is_fp8(const Model& model, Role role) {
  return model.fp8 && role == Role::Linear;
}

// N of "model.layers.N.": where the counts of this weight belong. Of ranks that share experts the
// first alone counts what all have.
Fp8Counts* counts_of(Model& model, const ParameterSpec& spec) {
  constexpr std::string_view prefix = "model.layers.";
  const std::string& name = spec.name;
  MINKE_ASSERT(name.starts_with(prefix));
  if (model.fp8_weights.empty()) return nullptr;
  if (model.config.local_experts().first > 0 && !is_routed_expert(spec)) return nullptr;
  return &model.fp8_weights.at(std::stoul(name.substr(prefix.size())));
}

// Quantises a master in 128x128 blocks, whose codes are the same read along rows and columns.
void pack_fp8(ScaleForm form, const Tensor& master, Weight& w, Fp8Counts* counts) {
  if (form == ScaleForm::Float) {
    Tensor codes = Tensor::uninitialized<E4M3>(master.shape());
    Tensor scales = Tensor::uninitialized(
        {block_count(master.extent(0), kFp8Tile), block_count(master.extent(1), kFp8Tile)});
    fp8_blocks(master.v2(), ScaleForm::Float, codes.view<E4M3, 2>(), scales.v2(), counts);
    w.forward = PackedWeights::pack(std::as_const(codes).view<E4M3, 2>(), scales.v2());
    w.transposed =
        PackedWeights::pack_transposed(std::as_const(codes).view<E4M3, 2>(), scales.v2());
    return;
  }
  Tensor rounded = Tensor::uninitialized(master.shape());
  round_to_fp8_blocks(master.v2(), rounded.v2(), counts);
  if (w.forward.defined()) {
    w.forward.repack(rounded.v2());
    w.transposed.repack_transposed(rounded.v2());
  } else {
    w.forward = PackedWeights::pack(std::as_const(rounded).v2(), WeightForm::Bf16);
    w.transposed = PackedWeights::pack_transposed(std::as_const(rounded).v2(), WeightForm::Bf16);
  }
}

using Pack = PackedWeights Weight::*;

BlockVector<const PackedWeights*> packed(std::span<const Weight* const> w, Pack pack) {
  BlockVector<const PackedWeights*> all;
  all.reserve(w.size());
  for (const Weight* weight : w) all.push_back(&(weight->*pack));
  return all;
}

}  // namespace

Compute parse_compute(std::string_view name) {
  if (name == "fp64") return Compute::Fp64;
  if (name == "fp32") return Compute::Fp32;
  if (name == "bf16") return Compute::Bf16;
  if (name == "fp8") return Compute::Fp8;
  throw ConfigError(fmt::format("compute \"{}\" is unknown; expected fp32, bf16 or fp8", name));
}

std::string_view name_of(Compute compute) {
  switch (compute) {
    case Compute::Fp64:
      return "fp64";
    case Compute::Fp32:
      return "fp32";
    case Compute::Bf16:
      return "bf16";
    default:
      return "fp8";
  }
}

void apply(const Weight& w, View2<const float> x, View2<float> y, Write write) {
  if (w.fp8_product)
    linear_fp8(x, w.forward, y, write);
  else
    linear(x, w.forward, y, write);
}

void apply_transposed(const Weight& w, View2<const float> dy, View2<float> dx, Write write) {
  linear(dy, w.transposed, dx, write);
}

void apply(const WeightOf<double>& w, View2<const double> x, View2<double> y, Write write) {
  linear(x, w.table(), y, write);
}

void apply_transposed(const WeightOf<double>& w, View2<const double> dy, View2<double> dx,
                      Write write) {
  linear_backward_input(dy, w.table(), dx, write);
}

void apply_grouped(std::span<const Weight* const> w, View2<const float> x,
                   std::span<const Index> offsets, View2<float> y) {
  if (w.front()->fp8_product)
    linear_fp8_grouped(x, offsets, packed(w, &Weight::forward), y);
  else
    linear_grouped(x, offsets, packed(w, &Weight::forward), y);
}

void apply_grouped(std::span<const WeightOf<double>* const> w, View2<const double> x,
                   std::span<const Index> offsets, View2<double> y) {
  for (std::size_t e = 0; e < w.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    apply(*w[e], x.rows(first, rows), y.rows(first, rows));
  }
}

void apply_transposed_grouped(std::span<const Weight* const> w, View2<const float> dy,
                              std::span<const Index> offsets, View2<float> dx, Write write) {
  linear_grouped(dy, offsets, packed(w, &Weight::transposed), dx, write);
}

void apply_transposed_grouped(std::span<const WeightOf<double>* const> w, View2<const double> dy,
                              std::span<const Index> offsets, View2<double> dx, Write write) {
  for (std::size_t e = 0; e < w.size(); ++e) {
    const Index first = offsets[e], rows = offsets[e + 1] - first;
    apply_transposed(*w[e], dy.rows(first, rows), dx.rows(first, rows), write);
  }
}

Model make_training_model(const ModelConfig& config, ModelParameters<Tensor>& masters,
                          Compute compute, const TrainingForm& form) {
  MINKE_ASSERT(compute != Compute::Fp64);  // that is make_double_model
  if (compute == Compute::Fp8 && !form.recompute.swiglu)
    throw ConfigError(
        "recompute.swiglu is false, but compute fp8 keeps SwiGLU's inputs in FP8 and computes its "
        "output again; leave recompute.swiglu true");
  Model model;
  model.config = config;
  model.compute = compute;
  model.recompute = form.recompute;
  model.narrow_operands = compute == Compute::Bf16;
  if (compute == Compute::Fp8) {
    model.fp8 = form.fp8_scales;
    if (form.fp8_statistics)
      model.fp8_weights.resize(
          static_cast<std::size_t>(config.num_hidden_layers + config.num_nextn_predict_layers));
  }
  set_position_constants(model);
  visit_pairs(config, masters, model.weights,
              [&](const ParameterSpec& spec, Tensor& master, Weight& w) {
                if (!is_matrix(spec.role)) {
                  w.dense = master.clone();
                } else if (is_fp8(model, spec.role)) {
                  pack_fp8(*model.fp8, master, w, counts_of(model, spec));
                } else {
                  const WeightForm packed = training_form(spec.role, compute);
                  w.forward = PackedWeights::pack(master.v2(), packed);
                  w.transposed = PackedWeights::pack_transposed(master.v2(), packed);
                }
              });
  return model;
}

ModelOf<double> make_double_model(const ModelConfig& config, ModelParameters<Tensor>& masters) {
  ModelOf<double> model;
  model.config = config;
  set_position_constants(model);
  visit_pairs(config, masters, model.weights,
              [](const ParameterSpec&, Tensor& master, WeightOf<double>& w) {
                MINKE_ASSERT(master.dtype() == DType::F64);
                w.dense = master.clone();
              });
  return model;
}

namespace {

// A matrix to be packed again. Up to kOfOneThread bytes one thread does all of it, so that what is
// rounded and packed twice stays in its cache; of a larger one every thread has a part.
struct Repacking {
  static constexpr std::size_t kOfOneThread = std::size_t{4} << 20;
  const Tensor* master;
  Weight* w;
  std::optional<ScaleForm> fp8;
  Fp8Counts* counts;  // of its layer, or null
  Fp8Counts own = {};

  bool of_one_thread() const { return master->bytes() <= kOfOneThread; }
  void run() {
    if (fp8) {
      pack_fp8(*fp8, *master, *w, counts ? &own : nullptr);
    } else {
      w->forward.repack(master->v2());
      w->transposed.repack_transposed(master->v2());
    }
  }
};

}  // namespace

void refresh(Model& model, ModelParameters<Tensor>& masters) {
  std::fill(model.fp8_weights.begin(), model.fp8_weights.end(), Fp8Counts{});
  std::vector<Repacking> matrices;
  visit_pairs(model.config, masters, model.weights,
              [&](const ParameterSpec& spec, Tensor& master, Weight& w) {
                if (!is_matrix(spec.role))
                  copy(as_row<float>(master), as_row<float>(w.dense));
                else if (is_fp8(model, spec.role))
                  matrices.push_back({&master, &w, model.fp8, counts_of(model, spec)});
                else
                  matrices.push_back({&master, &w, std::nullopt, nullptr});
              });
  const auto large = std::partition(matrices.begin(), matrices.end(),
                                    [](const Repacking& m) { return m.of_one_thread(); });
  for (auto m = large; m != matrices.end(); ++m) m->run();
  parallel_for(large - matrices.begin(),
               [&](Index i) { matrices[static_cast<std::size_t>(i)].run(); });
  for (const Repacking& m : matrices)
    if (m.counts) *m.counts += m.own;
}

void refresh(ModelOf<double>& model, ModelParameters<Tensor>& masters) {
  visit_pairs(model.config, masters, model.weights,
              [](const ParameterSpec&, Tensor& master, WeightOf<double>& w) {
                copy(as_row<double>(master), as_row<double>(w.dense));
              });
}

template <class Real>
void set_position_constants(ModelOf<Real>& model) {
  const ModelConfig& c = model.config;
  model.inv_freq = rope_inverse_frequencies<Real>(c.qk_rope_head_dim, c.rope_theta, c.rope_scaling);
  model.softmax_scale = c.softmax_scale();
  model.rotation_mscale = rotation_mscale(c.rope_scaling);
}
template void set_position_constants(ModelOf<float>&);
template void set_position_constants(ModelOf<double>&);

void pack_absorbed(const ModelConfig& c, View2<const float> kv_b_proj, WeightForm form, Weight& w) {
  const Index H = c.num_attention_heads, N = c.qk_nope_head_dim, V = c.v_head_dim;
  w.head_keys.resize(static_cast<std::size_t>(H));
  w.head_values.resize(static_cast<std::size_t>(H));
  const EvenParts homes{H, n_homes()};  // of heads, as in model/mla_decode.cpp
  parallel_for_at_home(H, [&](Index h) {
    const View2<const float> head = kv_b_proj.rows(h * (N + V), N + V);
    const auto place = static_cast<std::size_t>(h);
    const Index home = homes.part_of(h);
    w.head_keys[place] = PackedWeights::pack_transposed(head.rows(0, N), form, home);
    w.head_values[place] = PackedWeights::pack(head.rows(N, V), form, home);
  });
}

}  // namespace minke
