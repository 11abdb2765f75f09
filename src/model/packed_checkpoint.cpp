#include "model/packed_checkpoint.h"

#include <array>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/machine_memory.h"
#include "io/model_directory.h"
#include "model/weight_loader.h"

namespace minke {
namespace {

// Of panels and codes as ops/linear.h describes them: another one when that changes.
constexpr const char* kOrder = "panels of 16, 1";
constexpr std::size_t kPage = 4096;

constexpr PackedShape kForms[] = {{0, 0, WeightForm::F32},
                                  {0, 0, WeightForm::Bf16},
                                  {0, 0, WeightForm::E4m3},
                                  {0, 0, WeightForm::Int4, 32},
                                  {0, 0, WeightForm::Int4, 128}};

std::string form_name(WeightForm form, Index group = 0) {
  switch (form) {
    case WeightForm::F32:
      return "f32";
    case WeightForm::Bf16:
      return "bf16";
    case WeightForm::E4m3:
      return "e4m3";
    default:
      return fmt::format("int4-{}", group);
  }
}

bool is_dense(Role role) {
  return role == Role::Norm || role == Role::Bias || role == Role::Embedding;
}

DType dense_dtype(WeightForm form) {
  return form == WeightForm::Bf16 ? DType::BF16 : DType::F32;
}

std::size_t dense_bytes(const Shape& shape, WeightForm form) {
  const auto bytes = static_cast<std::size_t>(element_count(shape)) * size_of(dense_dtype(form));
  return (bytes + PackedWeights::kAlign - 1) / PackedWeights::kAlign * PackedWeights::kAlign;
}

// W_UK^T and W_UV of one head.
PackedShape head_key(const ModelConfig& c, WeightForm form) {
  return {c.kv_lora_rank, c.qk_nope_head_dim, form};
}
PackedShape head_value(const ModelConfig& c, WeightForm form) {
  return {c.v_head_dim, c.kv_lora_rank, form};
}

class Packing {
 public:
  explicit Packing(const PackOptions& options)
      : options_(options),
        store_(TensorStore::open(options.model, {.allow_symlinks = options.allow_symlinks})),
        config_(config_as_present(store_, ModelConfig::load(options.model))),
        load_{.compute = options.compute},
        loader_(store_, config_, load_) {
    ModelParameters<int> unused;
    visit_parameters(config_, unused, [&](const ParameterSpec& spec, int&) { plan(spec); });
  }

  PackReport run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    check_space(options_.out, decls_);
    AtomicDirectory out(options_.out);
    ShardedWriter writer(out.path(), decls_,
                         {.max_shard_bytes = options_.max_shard_bytes,
                          .metadata = {{"format", std::string(kPackedFormat)},
                                       {"order", kOrder},
                                       {"compute", std::string(name_of(options_.compute))}},
                          .alignment = kPage});
    PackReport report;
    progress(0, store_.total_bytes());
    Weight weight;
    std::string loaded;
    for (const TensorDecl& t : writer.order()) {
      const Part& part = parts_.at(t.name);
      if (std::exchange(loaded, part.spec.name) != part.spec.name) {
        weight = {};
        loader_.load(part.spec, weight);
        store_.check_intact();
        ++report.weights;
        report.bytes_read += store_.stored_bytes(part.spec.name);
        progress(report.bytes_read, store_.total_bytes());
      }
      writer.write(bytes_of(part, weight, t.bytes()));
      report.bytes_written += t.bytes();
    }
    for (const auto& [name, digest] : writer.finish()) out.record(name, digest);
    report.files_copied = copy_other_files(options_.model, store_options(), out);
    copy_config(out);
    store_.check_intact();
    out.commit();
    return report;
  }

 private:
  enum class Kind { Dense, Matrix, HeadKeys, HeadValues };
  struct Part {
    Kind kind;
    ParameterSpec spec;
  };

  StoreOptions store_options() const { return {.allow_symlinks = options_.allow_symlinks}; }

  void plan(const ParameterSpec& spec) {
    if (is_dense(spec.role)) {
      (void)stored_as(store_, spec);
      const WeightForm form = spec.role == Role::Embedding && options_.compute == Compute::Bf16
                                  ? WeightForm::Bf16
                                  : WeightForm::F32;
      return add(Kind::Dense, spec, form_name(form), dense_bytes(spec.shape, form));
    }
    const PackedShape shape = loader_.packed_shape(spec);
    add(Kind::Matrix, spec, form_name(shape.form, shape.group), PackedWeights::stored_bytes(shape));
    if (!is_kv_b(spec)) return;
    const WeightForm form = loader_.head_form();
    const auto H = static_cast<std::size_t>(config_.num_attention_heads);
    add(Kind::HeadKeys, spec, "head_keys/" + form_name(form),
        H * PackedWeights::stored_bytes(head_key(config_, form)));
    add(Kind::HeadValues, spec, "head_values/" + form_name(form),
        H * PackedWeights::stored_bytes(head_value(config_, form)));
  }

  void add(Kind kind, const ParameterSpec& spec, const std::string& form, std::size_t bytes) {
    const std::string name = spec.name + "/" + form;
    decls_.push_back({name, DType::U8, {static_cast<Index>(bytes)}});
    parts_[name] = {kind, spec};
  }

  std::span<const std::byte> bytes_of(const Part& part, const Weight& w, std::size_t n) {
    buffer_.assign(n, std::byte{0});
    std::span<std::byte> to = buffer_;
    const auto store = [&](const PackedWeights& packed) {
      const std::size_t bytes = PackedWeights::stored_bytes(packed.shape());
      packed.store(to.first(bytes));
      to = to.subspan(bytes);
    };
    switch (part.kind) {
      case Kind::Dense:
        std::copy_n(static_cast<const std::byte*>(w.dense.raw()), w.dense.bytes(), to.begin());
        break;
      case Kind::Matrix:
        store(w.forward);
        break;
      case Kind::HeadKeys:
        for (const PackedWeights& head : w.head_keys) store(head);
        break;
      case Kind::HeadValues:
        for (const PackedWeights& head : w.head_values) store(head);
        break;
    }
    return buffer_;
  }

  void copy_config(AtomicDirectory& out) {
    const MappedFile from =
        MappedFile::open(file_in_directory(options_.model, "config.json", store_options()));
    FileWriter to(out.path() / "config.json");
    to.write(from.bytes());
    from.check_intact();
    out.record("config.json", to.finish());
  }

  PackOptions options_;
  TensorStore store_;
  ModelConfig config_;
  LoadOptions load_;
  WeightLoader loader_;
  std::vector<TensorDecl> decls_;
  std::map<std::string, Part> parts_;  // by name in the files
  std::vector<std::byte> buffer_;
};

class Mapping {
 public:
  // `prefetch`: the system begins to read what is mapped.
  Mapping(const TensorStore& store, const ModelConfig& config, const LoadOptions& options,
          bool prefetch)
      : store_(store), config_(config), options_(options), prefetch_(prefetch) {}

  void map(const ParameterSpec& spec, Weight& w) const {
    if (is_dense(spec.role)) {
      const Found found = find(spec.name);
      w.dense = Tensor::borrowed(dense_dtype(found.form.form), spec.shape,
                                 bytes(found, dense_bytes(spec.shape, found.form.form)).data());
      return;
    }
    const bool kv_b = is_kv_b(spec);
    if (!kv_b || options_.expanded) {
      const Found found = find(spec.name);
      const PackedShape shape{spec.shape[0], spec.shape[1], found.form.form, found.form.group};
      w.forward = PackedWeights::stored(shape, bytes(found, PackedWeights::stored_bytes(shape)));
      w.fp8_product = spec.role == Role::Linear && options_.compute == Compute::Fp8;
    }
    if (kv_b && options_.absorbed) {
      map_heads(spec.name + "/head_keys", head_key, w.head_keys);
      map_heads(spec.name + "/head_values", head_value, w.head_values);
    }
  }

  bool contains(const std::string& name) const {
    for (const PackedShape& form : kForms)
      if (store_.contains(name + "/" + form_name(form.form, form.group))) return true;
    return false;
  }

 private:
  struct Found {
    std::string name;
    PackedShape form;
  };

  Found find(const std::string& name) const {
    for (const PackedShape& form : kForms) {
      std::string in_file = name + "/" + form_name(form.form, form.group);
      if (store_.contains(in_file)) return {std::move(in_file), form};
    }
    throw FormatError(fmt::format("{}: packed weight {} is missing; pack the checkpoint again",
                                  store_.directory().string(), name));
  }

  std::span<const std::byte> bytes(const Found& found, std::size_t expected) const {
    const TensorInfo& info = store_.at(found.name);
    const std::span<const std::byte> bytes = store_.bytes(found.name);
    if (prefetch_) store_.prefetch(found.name);
    if (info.dtype == DType::U8 && bytes.size() == expected &&
        reinterpret_cast<std::uintptr_t>(bytes.data()) % PackedWeights::kAlign == 0)
      return bytes;
    throw FormatError(
        fmt::format("{}: {} is {} {} at byte {}; {} bytes at a multiple of {} are expected; pack "
                    "the checkpoint "
                    "again",
                    store_.directory().string(), found.name, name_of(info.dtype),
                    to_string(info.shape), info.begin, expected, PackedWeights::kAlign));
  }

  template <class ShapeOf>
  void map_heads(const std::string& name, ShapeOf shape_of,
                 std::vector<PackedWeights>& heads) const {
    const Found found = find(name);
    const PackedShape shape = shape_of(config_, found.form.form);
    const std::size_t each = PackedWeights::stored_bytes(shape);
    const auto H = static_cast<std::size_t>(config_.num_attention_heads);
    const auto all = bytes(found, H * each);
    for (std::size_t h = 0; h < H; ++h)
      heads.push_back(PackedWeights::stored(shape, all.subspan(h * each, each)));
  }

  const TensorStore& store_;
  const ModelConfig& config_;
  const LoadOptions& options_;
  bool prefetch_;
};

void check_metadata(const TensorStore& store, Compute compute) {
  for (const SafetensorsFile& file : store.shards()) {
    const auto value = [&](const char* key) {
      const auto found = file.metadata().find(key);
      return found == file.metadata().end() ? "nothing" : found->second;
    };
    if (value("order") != kOrder)
      throw FormatError(
          fmt::format("{} is packed as \"{}\", this minke reads \"{}\"; pack the checkpoint again",
                      file.path().string(), value("order"), kOrder));
    if (value("compute") != name_of(compute))
      throw ConfigError(
          fmt::format("{} is packed for --compute {}, not {}; use that, or the checkpoint that it "
                      "was made from",
                      file.path().string(), value("compute"), name_of(compute)));
  }
}

// What does not fit into memory is read again from the disk for every token.
bool fits_into_memory(const TensorStore& store) {
  const std::uint64_t bytes = store.total_bytes(), here = read_machine_memory().available_bytes;
  if (here == 0 || bytes <= here) return true;
  log_warning(fmt::format(
      "the weights take {:.1f} GB but only {:.1f} GB of memory are available: they stay on disk "
      "and are read as they are used, so that the disk sets the speed",
      static_cast<double>(bytes) * 1e-9, static_cast<double>(here) * 1e-9));
  return false;
}

}  // namespace

PackReport pack_model(const PackOptions& options,
                      FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
  check_output(options.model, options.out, options.overwrite);
  return Packing(options).run(progress);
}

Model map_model(std::shared_ptr<const TensorStore> store, const ModelConfig& announced,
                const LoadOptions& options) {
  check_metadata(*store, options.compute);
  Model model;
  model.config = announced;
  model.config.held_experts = options.held_experts;
  model.config.held_stages = options.held_stages;
  model.compute = options.compute;
  const Mapping mapping(*store, model.config, options, fits_into_memory(*store));
  Index& n_mtp = model.config.num_nextn_predict_layers;
  n_mtp = 0;
  while (options.mtp && n_mtp < announced.num_nextn_predict_layers &&
         mapping.contains(mtp_prefix(announced, n_mtp) + "eh_proj.weight"))
    ++n_mtp;
  model.config.check(store->directory().string());
  set_position_constants(model);
  visit_wanted(model.config, options, model.weights,
               [&](const ParameterSpec& spec, Weight& w) { mapping.map(spec, w); });
  store->check_intact();
  model.mapped = std::move(store);
  return model;
}

}  // namespace minke
