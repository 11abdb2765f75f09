#include "model/checkpoint.h"

#include <map>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "io/tensor_store.h"
#include "ops/permute.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

std::string mtp_prefix(const ModelConfig& c, Index k) {
  return fmt::format("model.layers.{}.", c.num_hidden_layers + k);
}

// Modules whose tensors are in the store, counted from the first. One that begins but is not whole
// fails later, when its missing tensor is asked for.
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

enum class Stored { Real, Bf16, Fp8, Int4 };

// How the tensor is stored. Name, type and extents are what the configuration says.
Stored checked(const TensorStore& store, const ParameterSpec& spec) {
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

// The names of the whole model, whoever holds its experts.
std::set<std::string> published_names(const ModelConfig& held) {
  const ModelConfig config = held.whole();
  std::set<std::string> names;
  ModelParameters<int> unused;
  visit_parameters(config, unused,
                   [&](const ParameterSpec& spec, int&) { names.insert(spec.name); });
  return names;
}

// Tensors that the model does not have and that are not the known repetitions get one warning. The
// modules beyond those of `config` were not wanted.
void report_unread(const TensorStore& store, const ModelConfig& announced,
                   const ModelConfig& config) {
  const std::set<std::string> known = published_names(config);
  const Index n_mtp = config.num_nextn_predict_layers;
  std::string first;
  std::size_t n = 0;
  store.for_each([&](const StoredTensor& t) {
    const std::string& name = t.info->name;
    if (known.contains(name) || name.ends_with("rotary_emb.inv_freq")) return;
    if (name.ends_with("_scale_inv") && known.contains(name.substr(0, name.size() - 10))) return;
    if (known.contains(std::string(int4_weight_of(name)))) return;
    for (Index k = 0; k < announced.num_nextn_predict_layers; ++k)
      if (name == mtp_prefix(announced, k) + "embed_tokens.weight" ||
          name == mtp_prefix(announced, k) + "shared_head.head.weight" ||
          (k >= n_mtp && name.starts_with(mtp_prefix(announced, k))))
        return;
    if (n++ == 0) first = name;
  });
  if (n > 0)
    log_warning(
        fmt::format("{}: {} tensors are not part of the model that config.json describes "
                    "and are ignored (the first: {})",
                    store.directory().string(), n, first));
}

// Bytes on disk of what is held; a tensor that is missing is reported when it is asked for.
std::uint64_t held_bytes(const TensorStore& store, const ModelConfig& config) {
  if (config.holds_all()) return store.total_bytes();
  std::uint64_t bytes = 0;
  ModelParameters<int> unused;
  visit_parameters(config, unused, [&](const ParameterSpec& spec, int&) {
    if (store.contains(spec.name) || store.is_int4(spec.name))
      bytes += store.stored_bytes(spec.name);
  });
  return bytes;
}

struct Fp8Matrix {
  Tensor codes, scales;
};

Fp8Matrix quantize(const Tensor& x) {
  Fp8Matrix q;
  q.codes = Tensor::uninitialized(DType::F8_E4M3, x.shape());
  q.scales = Tensor::uninitialized({block_count(x.extent(0), kWeightBlock.rows),
                                    block_count(x.extent(1), kWeightBlock.columns)});
  quantize_blocks(x.v2(), kWeightBlock, ScaleForm::Float, q.codes.view<E4M3, 2>(), q.scales.v2());
  return q;
}

Tensor through_fp8(const Tensor& x) {
  const Fp8Matrix q = quantize(x);
  Tensor y = Tensor::uninitialized(x.shape());
  dequantize_blocks<float>(q.codes.view<E4M3, 2>(), q.scales.v2(), kWeightBlock, y.v2());
  return y;
}

class Loader {
 public:
  Loader(const TensorStore& store, const ModelConfig& config, const LoadOptions& options)
      : store_(store), config_(config), options_(options) {}

  void load(const ParameterSpec& spec, Weight& w) {
    const Stored stored = checked(store_, spec);
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
        w.forward = PackedWeights::pack(store_.read_f32(spec.name).v2(), WeightForm::F32);
        break;
      case Role::Head:
      case Role::EhProj:
        pack_plain(spec, stored, w);
        break;
      case Role::Linear:
        load_linear(spec, stored, w);
        break;
    }
    store_.drop(spec.name);
  }

 private:
  // FP32 or BF16 as the compute wants; FP8 and 4 bits on disk are dequantised.
  void pack_plain(const ParameterSpec& spec, Stored stored, Weight& w) {
    if (options_.compute != Compute::Bf16)
      w.forward = PackedWeights::pack(store_.read_f32(spec.name).v2(), WeightForm::F32);
    else if (stored == Stored::Bf16)
      w.forward = PackedWeights::pack(store_.view<BF16, 2>(spec.name));
    else
      w.forward = PackedWeights::pack(store_.read_bf16(spec.name).view<BF16, 2>());
  }

  void load_linear(const ParameterSpec& spec, Stored stored, Weight& w) {
    const bool kv_b = spec.name.ends_with("kv_b_proj.weight");
    if (!kv_b || options_.expanded) load_product(spec, stored, w);
    if (kv_b && options_.absorbed) {
      // Never an FP8 product: dequantised, as the published inference code does.
      const bool bf16 = options_.compute == Compute::Bf16;
      Tensor dense = store_.read_f32(spec.name);
      if (options_.compute == Compute::Fp8 && stored != Stored::Fp8) dense = through_fp8(dense);
      pack_absorbed(config_, dense.v2(), bf16 ? WeightForm::Bf16 : WeightForm::F32, w);
    }
  }

  void load_product(const ParameterSpec& spec, Stored stored, Weight& w) {
    const bool on_disk = stored == Stored::Fp8;
    if (stored == Stored::Int4 && options_.compute == Compute::Bf16) {
      const StoredInt4 int4 = store_.int4(spec.name);
      w.forward = PackedWeights::pack_int4(int4.packed, int4.scales, int4.k, int4.group);
      return;
    }
    if (options_.compute == Compute::Fp32 || (options_.compute == Compute::Bf16 && !on_disk)) {
      pack_plain(spec, stored, w);
      return;
    }
    w.fp8_product = options_.compute == Compute::Fp8;
    if (on_disk) {
      w.forward =
          PackedWeights::pack(store_.view<E4M3, 2>(spec.name), store_.read_scales(spec.name).v2());
    } else {
      const Fp8Matrix q = quantize(store_.read_f32(spec.name));
      w.forward = PackedWeights::pack(q.codes.view<E4M3, 2>(), q.scales.v2());
    }
  }

  const TensorStore& store_;
  const ModelConfig& config_;
  const LoadOptions& options_;
};

}  // namespace

Model load_model(const std::filesystem::path& directory, const LoadOptions& options) {
  if (options.compute == Compute::Fp64)
    throw ConfigError("compute fp64 is for training steps (minke step) alone; use fp32");
  const ModelConfig announced = ModelConfig::load(directory);
  const TensorStore store =
      TensorStore::open(directory, {.allow_symlinks = options.allow_symlinks});
  Model model;
  model.config = config_as_present(store, announced);
  if (!options.mtp) model.config.num_nextn_predict_layers = 0;
  model.config.held_experts = options.held_experts;
  model.config.check(directory.string());
  model.compute = options.compute;
  set_position_constants(model);

  std::uint64_t done = 0;
  const std::uint64_t total = held_bytes(store, model.config);
  Loader loader(store, model.config, options);
  visit_parameters(model.config, model.weights, [&](const ParameterSpec& spec, Weight& w) {
    loader.load(spec, w);
    done += store.stored_bytes(spec.name);
    if (options.progress) options.progress(done, total);
  });
  store.check_intact();
  report_unread(store, announced, model.config);
  return model;
}

ModelParameters<Tensor> load_masters(const std::filesystem::path& directory, ModelConfig& config,
                                     const HoldPart& hold) {
  const TensorStore store = TensorStore::open(directory);
  const ModelConfig announced = ModelConfig::load(directory);
  config = config_as_present(store, announced);
  if (hold) hold(config);
  config.check(directory.string());
  ModelParameters<Tensor> masters;
  visit_parameters(config, masters, [&](const ParameterSpec& spec, Tensor& t) {
    checked(store, spec);
    t = store.read_f32(spec.name);
    store.drop(spec.name);
  });
  store.check_intact();
  report_unread(store, announced, config);
  return masters;
}

namespace {

// What a tensor on disk is made from.
struct SavedTensor {
  enum class Form { Plain, Codes, Scales };
  ParameterSpec master;
  DType dtype;
  Form form = Form::Plain;
};

void write_tensor(const SavedTensor& saved, const Tensor& x, ShardedWriter& writer) {
  const auto write = [&](const Tensor& t) {
    writer.write(std::span(static_cast<const std::byte*>(t.raw()), t.bytes()));
  };
  if (saved.form == SavedTensor::Form::Codes) {
    write(quantize(x).codes);
  } else if (saved.form == SavedTensor::Form::Scales) {
    write(quantize(x).scales);
  } else if (saved.dtype == DType::F32) {
    write(x);
  } else {
    Tensor narrow = Tensor::uninitialized(DType::BF16, {1, x.size()});
    copy(reshape<2>(x.flat(), {1, x.size()}), narrow.view<BF16, 2>());
    write(narrow);
  }
}

}  // namespace

void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                const MasterSource& master_of, SaveDType dtype, bool shared_copies) {
  MINKE_ASSERT(config.holds_all());
  std::map<std::string, SavedTensor> sources;
  std::vector<TensorDecl> order;
  const DType wanted = dtype == SaveDType::F32 ? DType::F32 : DType::BF16;
  const auto add = [&](const std::string& name, Shape shape, const SavedTensor& saved) {
    sources[name] = saved;
    order.push_back({name, saved.dtype, std::move(shape)});
  };
  ParameterSpec embedding, head;
  ModelParameters<int> unused;
  visit_parameters(config, unused, [&](const ParameterSpec& spec, int&) {
    if (spec.role == Role::Embedding) embedding = spec;
    if (spec.role == Role::Head) head = spec;
    if (dtype == SaveDType::Fp8 && spec.role == Role::Linear) {
      add(spec.name, spec.shape, {spec, DType::F8_E4M3, SavedTensor::Form::Codes});
      add(spec.name + "_scale_inv",
          {block_count(spec.shape[0], kWeightBlock.rows),
           block_count(spec.shape[1], kWeightBlock.columns)},
          {spec, DType::F32, SavedTensor::Form::Scales});
    } else {
      add(spec.name, spec.shape, {spec, spec.role == Role::Bias ? DType::F32 : wanted});
    }
  });
  if (shared_copies)
    for (Index k = 0; k < config.num_nextn_predict_layers; ++k) {
      add(mtp_prefix(config, k) + "embed_tokens.weight", embedding.shape, {embedding, wanted});
      add(mtp_prefix(config, k) + "shared_head.head.weight", head.shape, {head, wanted});
    }

  save_config(directory, config, dtype);
  ShardedWriter writer(directory, order);
  const std::vector<TensorDecl> decls = writer.order();
  for (const TensorDecl& decl : decls) {
    const SavedTensor& tensor = sources.at(decl.name);
    write_tensor(tensor, master_of(tensor.master), writer);
  }
  writer.finish();
}

void save_model(const std::filesystem::path& directory, const ModelConfig& config,
                ModelParameters<Tensor>& masters, SaveDType dtype, bool shared_copies) {
  std::map<std::string, const Tensor*> by_name;
  for (const auto& [spec, leaf] : list_parameters(config, masters)) by_name[spec.name] = leaf;
  save_model(
      directory, config,
      [&](const ParameterSpec& spec) -> const Tensor& { return *by_name.at(spec.name); }, dtype,
      shared_copies);
}

void save_config(const std::filesystem::path& directory, const ModelConfig& config,
                 SaveDType dtype) {
  ModelConfig saved = config;
  saved.torch_dtype = dtype == SaveDType::F32 ? "float32" : "bfloat16";
  saved.quantization.reset();
  saved.int4.reset();
  if (dtype == SaveDType::Fp8) saved.quantization = Fp8Quantization{};
  saved.save(directory);
}

CheckpointSummary summarize_checkpoint(const std::filesystem::path& directory) {
  CheckpointSummary s;
  s.config = ModelConfig::load(directory);
  const TensorStore store = TensorStore::open(directory);
  s.mtp_present = count_mtp(store, s.config);
  ModelConfig present = s.config;
  present.num_nextn_predict_layers = s.mtp_present;
  s.n_tensors = store.size();
  s.n_files = store.shards().size();
  s.weight_bytes = store.total_bytes();
  std::map<std::string, std::uint64_t> by_dtype;
  store.for_each([&](const StoredTensor& t) {
    by_dtype[std::string(name_of(t.info->dtype))] += t.info->bytes();
  });
  s.bytes_by_dtype.assign(by_dtype.begin(), by_dtype.end());
  ModelParameters<int> unused;
  visit_parameters(present, unused, [&](const ParameterSpec& spec, int&) { checked(store, spec); });
  s.count = count_parameters(present);
  return s;
}

}  // namespace minke
