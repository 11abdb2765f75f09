#include "io/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/threads.h"
#include "io/model_directory.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 9> kFp8Linears = {
    "q_proj", "q_a_proj",  "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
    "o_proj", "gate_proj", "up_proj",  "down_proj"};

bool is_real(DType t) {
  return t == DType::F64 || t == DType::F32 || t == DType::F16 || t == DType::BF16;
}

// How one tensor of the output comes about.
enum class Action { Copy, Round, Dequantize, Scales, Codes, Int4Codes, Int4Scales, Int4Shape };
struct Step {
  Action action = Action::Copy;
  std::string source;         // tensor of the input; the weight itself where it becomes several
  std::uint64_t counted = 0;  // bytes of the input that are done with it
};

// model.layers.9.x before model.layers.10.x, so that a shard holds whole layers.
bool natural_less(std::string_view a, std::string_view b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      std::size_t m = i, n = j;
      while (m < a.size() && digit(a[m])) ++m;
      while (n < b.size() && digit(b[n])) ++n;
      if (m - i != n - j) return m - i < n - j;
      if (const int c = a.substr(i, m - i).compare(b.substr(j, n - j))) return c < 0;
      i = m, j = n;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

Json read_config(const fs::path& path) {
  Json config = read_ordered_json(path, std::size_t{16} << 20);
  if (!config.is_object()) throw FormatError(path.string() + ": a JSON object is expected");
  return config;
}

Fp8Block block_of(const Json& config, const fs::path& path) {
  const auto q = config.find("quantization_config");
  if (q == config.end() || q->is_null()) return kWeightBlock;
  const auto fail = [&](const char* key, const std::string& found, const char* expected) {
    throw ConfigError(fmt::format("{}: quantization_config.{} is {}, {} is expected", path.string(),
                                  key, found, expected));
  };
  const Json method = q->is_object() ? q->value("quant_method", Json("fp8")) : *q;
  if (method == "compressed-tensors") return kWeightBlock;  // its matrices say what they are
  if (method != "fp8") fail("quant_method", method.dump(), "\"fp8\" or \"compressed-tensors\"");
  const auto size = q->find("weight_block_size");
  if (size == q->end()) return kWeightBlock;
  if (!size->is_array() || size->size() != 2 || !(*size)[0].is_number_unsigned() ||
      !(*size)[1].is_number_unsigned() || (*size)[0] < 1 || (*size)[1] < 1 ||
      (*size)[0] > 1 << 20 || (*size)[1] > 1 << 20)
    fail("weight_block_size", size->dump(), "a pair of positive numbers");
  return {(*size)[0].get<Index>(), (*size)[1].get<Index>()};
}

class Conversion {
 public:
  explicit Conversion(const ConvertOptions& options)
      : options_(options),
        store_(TensorStore::open(options.model, {.allow_symlinks = options.allow_symlinks})),
        config_path_(file_in_directory(options.model, "config.json", store_options())),
        config_(read_config(config_path_)),
        block_(block_of(config_, config_path_)) {
    plan();
  }

  ConvertReport run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    check_space(options_.out, decls_);
    AtomicDirectory out(options_.out);
    ShardedWriter writer(out.path(), decls_, {.max_shard_bytes = options_.max_shard_bytes});
    std::uint64_t done = 0;
    progress(0, store_.total_bytes());
    for (const TensorDecl& t : writer.order()) {
      const Step& step = steps_.at(t.name);
      write(writer, t, step);
      store_.check_intact();
      if (step.counted > 0) store_.drop(step.source);
      report_.bytes_written += t.bytes();
      ++report_.tensors;
      progress(done += step.counted, store_.total_bytes());
    }
    for (const auto& [name, digest] : writer.finish()) out.record(name, digest);
    report_.files_copied = copy_other_files(options_.model, store_options(), out);
    write_config(out);
    store_.check_intact();
    out.commit();
    report_.bytes_read = done;
    return report_;
  }

 private:
  StoreOptions store_options() const { return {.allow_symlinks = options_.allow_symlinks}; }

  void add(const TensorInfo& like, std::string name, DType dtype, Shape shape, Action action,
           std::uint64_t counted) {
    decls_.push_back({name, dtype, std::move(shape)});
    steps_[std::move(name)] = {action, like.name, counted};
  }

  void plan() {
    store_.for_each([&](const StoredTensor& t) { plan(*t.info); });
    std::sort(decls_.begin(), decls_.end(), [](const TensorDecl& a, const TensorDecl& b) {
      return natural_less(a.name, b.name);
    });
  }

  void plan(const TensorInfo& t) {
    if (const std::string_view weight = int4_weight_of(t.name); !weight.empty())
      return plan_int4(t, std::string(weight));
    constexpr std::string_view kScale = "_scale_inv";
    if (std::string_view(t.name).ends_with(kScale)) {
      const TensorInfo* weight =
          store_.find(std::string_view(t.name).substr(0, t.name.size() - kScale.size()));
      if (!weight || weight->dtype != DType::F8_E4M3)
        throw FormatError(fmt::format("{}: {} holds scales, but {} F8_E4M3 weight",
                                      options_.model.string(), t.name,
                                      weight ? "its weight is not an" : "there is no"));
      if (options_.to == ConvertTo::Keep) add(t, t.name, t.dtype, t.shape, Action::Copy, t.bytes());
      return;
    }
    if (options_.to == ConvertTo::Keep) {
      if (t.dtype == DType::F8_E4M3) (void)store_.read_scales(t.name, block_);
      return add(t, t.name, t.dtype, t.shape, Action::Copy, t.bytes());
    }
    if (t.dtype == DType::F8_E4M3) return plan_fp8(t);
    const bool linear = is_fp8_weight(t.name) && t.shape.size() == 2 && is_real(t.dtype);
    if (options_.to == ConvertTo::Fp8 && linear) return add_quantized(t, t.bytes());
    if (options_.to == ConvertTo::Int4 && linear && !is_kv_b(t.name)) return add_int4(t, t.bytes());
    // The routing bias moves in steps far below BF16's and is published in F32.
    const bool round = is_real(t.dtype) && t.dtype != DType::BF16 &&
                       !std::string_view(t.name).ends_with("e_score_correction_bias");
    if (!round) return add(t, t.name, t.dtype, t.shape, Action::Copy, t.bytes());
    ++report_.rounded;
    add(t, t.name, DType::BF16, t.shape, Action::Round, t.bytes());
  }

  void plan_fp8(const TensorInfo& t) {
    const Tensor scales = store_.read_scales(t.name, block_);
    const std::uint64_t counted = t.bytes() + store_.at(scale_name(t.name)).bytes();
    if (options_.to == ConvertTo::Int4 && !is_kv_b(t.name)) return add_int4(t, counted);
    if (options_.to != ConvertTo::Fp8) {
      ++report_.dequantized;
      return add(t, t.name, DType::BF16, t.shape, Action::Dequantize, counted);
    }
    const bool fits = block_ == kWeightBlock &&
                      (options_.scale == ScaleForm::Float || powers_of_two(scales.v2()));
    if (!fits) return add_quantized(t, counted);
    add(t, t.name, t.dtype, t.shape, Action::Copy, counted);
    add(t, scale_name(t.name), DType::F32, scales.shape(), Action::Scales, 0);
  }

  void add_quantized(const TensorInfo& t, std::uint64_t counted) {
    ++report_.quantized;
    requantized_ = true;
    add(t, t.name, DType::F8_E4M3, t.shape, Action::Codes, counted);
    add(t, scale_name(t.name), DType::F32,
        {block_count(t.shape[0], kWeightBlock.rows), block_count(t.shape[1], kWeightBlock.columns)},
        Action::Scales, 0);
  }

  static bool is_kv_b(std::string_view name) { return name.ends_with("kv_b_proj.weight"); }

  // One of the three tensors of a matrix of 4 bits.
  void plan_int4(const TensorInfo& t, const std::string& weight) {
    const StoredInt4 int4 = store_.int4(weight);
    if (options_.to == ConvertTo::Keep)
      return add(t, t.name, t.dtype, t.shape, Action::Copy, t.bytes());
    if (options_.to != ConvertTo::Bf16)
      throw UsageError(
          fmt::format("{}: {} is in 4 bits already; convert it with --dtype bf16 first, or keep",
                      options_.model.string(), weight));
    if (t.name != Int4Names(weight).packed) return;
    ++report_.dequantized;
    decls_.push_back({weight, DType::BF16, int4.shape()});
    steps_[weight] = {Action::Dequantize, weight, store_.stored_bytes(weight)};
  }

  void add_int4(const TensorInfo& t, std::uint64_t counted) {
    ++report_.quantized;
    const Index n = t.shape[0], k = t.shape[1];
    const Int4Names names(t.name);
    add(t, names.packed, DType::I32, {n, block_count(k, kInt4PerWord)}, Action::Int4Codes, counted);
    add(t, names.scale, DType::BF16, {n, block_count(k, options_.group)}, Action::Int4Scales, 0);
    add(t, names.shape, DType::I64, {2}, Action::Int4Shape, 0);
  }

  // Codes come first in a file, by their name; the scales wait for their turn.
  Tensor int4_codes(const std::string& name) {
    const Tensor x = store_.read_f32(name, block_);
    check_finite(name, x);
    Int4Matrix q = quantize_int4(x.v2(), options_.group);
    int4_scales_[name] = std::move(q.scales);
    return std::move(q.packed);
  }

  void check_finite(const std::string& name, const Tensor& x) const {
    const View1<const float> values = x.flat();
    parallel_ranges(values.extent(0), 1 << 20, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i)
        if (!std::isfinite(values(i))) not_finite(name);
    });
  }

  void write(ShardedWriter& writer, const TensorDecl& t, const Step& step) {
    const auto put = [&](const Tensor& tensor) {
      writer.write({static_cast<const std::byte*>(tensor.raw()), tensor.bytes()});
    };
    switch (step.action) {
      case Action::Copy:
        writer.write(store_.bytes(step.source));
        break;
      case Action::Round:
      case Action::Dequantize:
        put(store_.read_bf16(step.source, block_));
        break;
      case Action::Scales:
        put(scales_of(step.source));
        break;
      case Action::Int4Codes:
        put(int4_codes(step.source));
        break;
      case Action::Int4Scales:
        put(int4_scales_.at(step.source));
        int4_scales_.erase(step.source);
        break;
      case Action::Int4Shape: {
        const Shape& shape = store_.at(step.source).shape;
        const std::array<std::int64_t, 2> extents{shape[0], shape[1]};
        writer.write(std::as_bytes(std::span(extents)));
        break;
      }
      case Action::Codes: {
        const Tensor scales = scales_of(step.source);
        scales_.erase(step.source);
        Tensor codes = Tensor::uninitialized(DType::F8_E4M3, t.shape);
        if (store_.at(step.source).dtype == DType::BF16) {
          quantize_with_scales(store_.view<BF16, 2>(step.source), kWeightBlock, scales.v2(),
                               codes.view<E4M3, 2>());
        } else {
          const Tensor x = store_.read_f32(step.source, block_);
          quantize_with_scales(x.v2(), kWeightBlock, scales.v2(), codes.view<E4M3, 2>());
        }
        check_codes(step.source, codes);
        put(codes);
        break;
      }
    }
  }

  // The scales come before the codes in a file; they are kept until the codes have been made.
  Tensor scales_of(const std::string& name) {
    const TensorInfo& t = store_.at(name);
    if (steps_.at(name).action == Action::Copy) return store_.read_scales(name, block_);
    const auto [it, fresh] = scales_.try_emplace(name);
    if (fresh) {
      it->second = Tensor::uninitialized({block_count(t.shape[0], kWeightBlock.rows),
                                          block_count(t.shape[1], kWeightBlock.columns)});
      if (t.dtype == DType::BF16) {
        block_scales(store_.view<BF16, 2>(name), kWeightBlock, options_.scale, it->second.v2());
      } else {
        const Tensor x = store_.read_f32(name, block_);
        block_scales(x.v2(), kWeightBlock, options_.scale, it->second.v2());
      }
      store_.drop(name);
      const auto values = it->second.flat();
      for (Index i = 0; i < values.extent(0); ++i)
        if (!std::isfinite(values(i))) not_finite(name);
    }
    return it->second.clone();
  }

  void check_codes(const std::string& name, const Tensor& codes) const {
    const std::uint8_t* c = static_cast<const std::uint8_t*>(codes.raw());
    parallel_ranges(codes.size(), 1 << 20, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i)
        if ((c[i] & 0x7F) == 0x7F) not_finite(name);
    });
  }

  [[noreturn]] void not_finite(const std::string& name) const {
    throw FormatError(fmt::format("{}: tensor {} holds NaN or infinity and cannot become {}",
                                  options_.model.string(), name,
                                  options_.to == ConvertTo::Int4 ? "4 bits" : "FP8"));
  }

  void write_config(AtomicDirectory& out) {
    if (options_.to == ConvertTo::Bf16) config_.erase("quantization_config");
    if (options_.to == ConvertTo::Int4) config_["quantization_config"] = int4_settings();
    if (options_.to == ConvertTo::Fp8) {
      Json& q = config_["quantization_config"];
      if (!q.is_object())
        q = {{"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}};
      q["weight_block_size"] = {kWeightBlock.rows, kWeightBlock.columns};
      if (options_.scale == ScaleForm::PowerOfTwo)
        q["scale_fmt"] = "ue8m0";
      else if (requantized_)
        q.erase("scale_fmt");
    }
    if (options_.to != ConvertTo::Keep)
      for (const char* key : {"torch_dtype", "dtype"})
        if (config_.contains(key)) config_[key] = "bfloat16";
    FileWriter file(out.path() / "config.json");
    file.write(config_.dump(2) + "\n");
    out.record("config.json", file.finish());
  }

  // As other engines read it: all linears but those that the patterns name.
  Json int4_settings() const {
    const Json weights = {{"num_bits", 4},
                          {"type", "int"},
                          {"symmetric", true},
                          {"strategy", "group"},
                          {"group_size", options_.group},
                          {"dynamic", false},
                          {"actorder", nullptr},
                          {"observer", "mse"}};
    const Json group = {{"targets", {"Linear"}},
                        {"weights", weights},
                        {"input_activations", nullptr},
                        {"output_activations", nullptr}};
    return {{"quant_method", "compressed-tensors"},
            {"format", "pack-quantized"},
            {"quantization_status", "compressed"},
            {"kv_cache_scheme", nullptr},
            {"config_groups", {{"group_0", group}}},
            {"ignore",
             {"lm_head", "re:.*kv_b_proj$", "re:.*mlp\\.gate$", "re:.*eh_proj$",
              "re:.*shared_head.*"}}};
  }

  ConvertOptions options_;
  TensorStore store_;
  fs::path config_path_;
  Json config_;
  Fp8Block block_;
  std::vector<TensorDecl> decls_;
  std::unordered_map<std::string, Step> steps_;     // by name of the output
  std::unordered_map<std::string, Tensor> scales_;  // of FP8, between their turn and the codes'
  std::unordered_map<std::string, Tensor> int4_scales_;  // between the codes' turn and theirs
  bool requantized_ = false;
  ConvertReport report_;
};

}  // namespace

bool is_fp8_weight(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return false;
  name.remove_suffix(kWeight.size());
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  return std::find(kFp8Linears.begin(), kFp8Linears.end(), name.substr(dot + 1)) !=
         kFp8Linears.end();
}

ConvertReport convert_model(const ConvertOptions& options,
                            FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
  if (options.to == ConvertTo::Int4) check_int4_group(options.group);
  check_output(options.model, options.out, options.overwrite);
  return Conversion(options).run(progress);
}

}  // namespace minke
