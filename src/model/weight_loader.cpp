#include "model/weight_loader.h"

#include "base/error.h"
#include "base/log.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

Tensor through_fp8(const Tensor& x) {
  const Fp8Matrix q = quantize_fp8(x);
  Tensor y = Tensor::uninitialized(x.shape());
  dequantize_blocks<float>(q.codes.view<E4M3, 2>(), q.scales.v2(), kWeightBlock, y.v2());
  return y;
}

}  // namespace

std::string mtp_prefix(const ModelConfig& c, Index k) {
  return fmt::format("model.layers.{}.", c.num_hidden_layers + k);
}

Index count_mtp(const TensorStore& store, const ModelConfig& c) {
  Index k = 0;
  while (k < c.num_nextn_predict_layers && store.contains(mtp_prefix(c, k) + "eh_proj.weight")) ++k;
  return k;
}

ModelConfig config_as_present(const TensorStore& store, ModelConfig c) {
  const Index present = count_mtp(store, c);
  if (present < c.num_nextn_predict_layers) {
    log_warning(
        fmt::format("{}: config.json announces {} MTP modules, the weights hold {}; the "
                    "others are left out",
                    store.directory().string(), c.num_nextn_predict_layers, present));
    c.num_nextn_predict_layers = present;
  }
  return c;
}

Stored stored_as(const TensorStore& store, const ParameterSpec& spec) {
  const TensorInfo* info = store.find(spec.name);
  const bool is_int4 = store.is_int4(spec.name);
  if (!info && !is_int4)
    throw FormatError(fmt::format("{}: tensor {} is missing; config.json asks for {} of it",
                                  store.directory().string(), spec.name, to_string(spec.shape)));
  const Shape shape = is_int4 ? store.int4(spec.name).shape() : info->shape;
  if (shape != spec.shape)
    throw FormatError(fmt::format(
        "{}: tensor {} is {} but config.json makes it {}; are the config and the weights from the "
        "same model?",
        store.directory().string(), spec.name, to_string(shape), to_string(spec.shape)));
  const bool is_fp8 = !is_int4 && info->dtype == DType::F8_E4M3;
  if ((is_fp8 || is_int4) && spec.role != Role::Linear)
    throw FormatError(fmt::format("{}: tensor {} is {}, which only linear weights may be",
                                  store.directory().string(), spec.name,
                                  is_fp8 ? "F8_E4M3" : "in 4 bits"));
  if (is_fp8) (void)store.scales_of(spec.name);
  return is_int4                      ? Stored::Int4
         : is_fp8                     ? Stored::Fp8
         : info->dtype == DType::BF16 ? Stored::Bf16
                                      : Stored::Real;
}

Fp8Matrix quantize_fp8(const Tensor& x) {
  Fp8Matrix q;
  q.codes = Tensor::uninitialized(DType::F8_E4M3, x.shape());
  q.scales = Tensor::uninitialized({block_count(x.extent(0), kWeightBlock.rows),
                                    block_count(x.extent(1), kWeightBlock.columns)});
  quantize_blocks(x.v2(), kWeightBlock, ScaleForm::Float, q.codes.view<E4M3, 2>(), q.scales.v2());
  return q;
}

bool is_kv_b(const ParameterSpec& spec) {
  return spec.name.ends_with("kv_b_proj.weight");
}

void WeightLoader::load(const ParameterSpec& spec, Weight& w) const {
  const Stored stored = stored_as(store_, spec);
  switch (spec.role) {
    case Role::Norm:
    case Role::Bias:
      w.dense = store_.read_f32(spec.name);
      break;
    case Role::Embedding:
      w.dense = options_.compute == Compute::Bf16 ? store_.read_bf16(spec.name)
                                                  : store_.read_f32(spec.name);
      break;
    case Role::Router:
    case Role::Head:
    case Role::EhProj:
      w.forward = packed(spec, stored);
      break;
    case Role::Linear:
      load_linear(spec, stored, w);
      break;
  }
  store_.drop(spec.name);
}

void WeightLoader::load_linear(const ParameterSpec& spec, Stored stored, Weight& w) const {
  const bool kv_b = is_kv_b(spec);
  if (!kv_b || options_.expanded) {
    w.forward = packed(spec, stored);
    w.fp8_product = options_.compute == Compute::Fp8;
  }
  if (kv_b && options_.absorbed) {
    // Never an FP8 product: dequantised, as the published inference code does.
    Tensor dense = store_.read_f32(spec.name);
    if (options_.compute == Compute::Fp8 && stored != Stored::Fp8) dense = through_fp8(dense);
    pack_absorbed(config_, dense.v2(), head_form(), w);
  }
}

WeightForm WeightLoader::head_form() const {
  return options_.compute == Compute::Bf16 ? WeightForm::Bf16 : WeightForm::F32;
}

// FP8 and 4 bits on disk stay what they are where the compute has products for them.
WeightForm WeightLoader::form_of(const ParameterSpec& spec, Stored stored) const {
  if (spec.role == Role::Router || options_.compute == Compute::Fp32) return WeightForm::F32;
  const bool bf16 = options_.compute == Compute::Bf16;
  if (spec.role != Role::Linear) return bf16 ? WeightForm::Bf16 : WeightForm::F32;
  if (!bf16 || stored == Stored::Fp8) return WeightForm::E4m3;
  return stored == Stored::Int4 ? WeightForm::Int4 : WeightForm::Bf16;
}

PackedShape WeightLoader::packed_shape(const ParameterSpec& spec) const {
  const WeightForm form = form_of(spec, stored_as(store_, spec));
  const Index group = form == WeightForm::Int4 ? store_.int4(spec.name).group : 0;
  return {spec.shape[0], spec.shape[1], form, group};
}

PackedWeights WeightLoader::packed(const ParameterSpec& spec, Stored stored) const {
  const std::string& name = spec.name;
  switch (form_of(spec, stored)) {
    case WeightForm::F32:
      return PackedWeights::pack(store_.read_f32(name).v2(), WeightForm::F32);
    case WeightForm::Bf16:
      if (stored == Stored::Bf16) return PackedWeights::pack(store_.view<BF16, 2>(name));
      return PackedWeights::pack(store_.read_bf16(name).view<BF16, 2>());
    case WeightForm::Int4: {
      const StoredInt4 int4 = store_.int4(name);
      return PackedWeights::pack_int4(int4.packed, int4.scales, int4.k, int4.group);
    }
    case WeightForm::E4m3:
      break;
  }
  if (stored == Stored::Fp8)
    return PackedWeights::pack(store_.view<E4M3, 2>(name), store_.read_scales(name).v2());
  const Fp8Matrix q = quantize_fp8(store_.read_f32(name));
  return PackedWeights::pack(q.codes.view<E4M3, 2>(), q.scales.v2());
}

}  // namespace minke
