#include "model/checkpoint.h"

#include <map>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "io/tensor_store.h"
#include "model/packed_checkpoint.h"
#include "model/weight_loader.h"
#include "ops/permute.h"
#include "tensor/fp8_blocks.h"

namespace minke {
namespace {

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

// Bytes on disk of what is wanted; a tensor that is missing is reported when it is asked for.
std::uint64_t wanted_bytes(const TensorStore& store, const ModelConfig& config,
                           const LoadOptions& options) {
  if (config.holds_all() && !options.experts_alone) return store.total_bytes();
  std::uint64_t bytes = 0;
  ModelParameters<int> unused;
  visit_wanted(config, options, unused, [&](const ParameterSpec& spec, int&) {
    if (store.contains(spec.name) || store.is_int4(spec.name))
      bytes += store.stored_bytes(spec.name);
  });
  return bytes;
}

}  // namespace

Model load_model(const std::filesystem::path& directory, const LoadOptions& options) {
  if (options.compute == Compute::Fp64)
    throw ConfigError("compute fp64 is for training steps (minke step) alone; use fp32");
  const ModelConfig announced = ModelConfig::load(directory);
  const auto opened = std::make_shared<const TensorStore>(
      TensorStore::open(directory, {.allow_symlinks = options.allow_symlinks, .packed = true}));
  if (opened->is_packed()) return map_model(opened, announced, options);
  const TensorStore& store = *opened;
  Model model;
  model.config = config_as_present(store, announced);
  if (!options.mtp) model.config.num_nextn_predict_layers = 0;
  model.config.held_experts = options.held_experts;
  model.config.held_stages = options.held_stages;
  model.config.check(directory.string());
  model.compute = options.compute;
  set_position_constants(model);

  std::uint64_t done = 0;
  const std::uint64_t total = wanted_bytes(store, model.config, options);
  const WeightLoader loader(store, model.config, options);
  visit_wanted(model.config, options, model.weights, [&](const ParameterSpec& spec, Weight& w) {
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
    stored_as(store, spec);
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
    write(quantize_fp8(x).codes);
  } else if (saved.form == SavedTensor::Form::Scales) {
    write(quantize_fp8(x).scales);
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
  visit_parameters(present, unused,
                   [&](const ParameterSpec& spec, int&) { stored_as(store, spec); });
  s.count = count_parameters(present);
  return s;
}

}  // namespace minke
