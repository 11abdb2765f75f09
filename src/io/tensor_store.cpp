#include "io/tensor_store.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "io/json_scanner.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::size_t kMaxIndex = 1'000'000'000;

struct ShardIndex {                                       // model.safetensors.index.json
  std::vector<std::string> files;                         // in order of first mention
  std::unordered_map<std::string, std::size_t> shard_of;  // tensor -> files
};

ShardIndex read_index(const fs::path& path) {
  const std::string text = read_file(path, kMaxIndex), file = path.string();
  ShardIndex index;
  std::unordered_map<std::string, std::size_t> number;
  bool found = false;
  JsonScanner json(text, file);
  json.object([&](const std::string& key) {
    if (key != "weight_map") return json.skip_value();
    if (std::exchange(found, true)) throw_format_error(file + ": \"weight_map\" is there twice");
    json.object([&](std::string name) {
      std::string shard = json.string();
      const auto [it, fresh] = number.try_emplace(shard, index.files.size());
      if (fresh) index.files.push_back(std::move(shard));
      const auto [at, unique] = index.shard_of.try_emplace(std::move(name), it->second);
      if (!unique) throw_format_error(fmt::format("{}: tensor {} is there twice", file, at->first));
    });
  });
  json.end();
  if (!found) throw_format_error(file + ": there is no \"weight_map\"");
  if (index.files.empty()) throw_format_error(file + ": \"weight_map\" names no tensor");
  return index;
}

template <class To, class From>
void convert(std::span<const std::byte> from, Tensor& to) {
  const From* source = reinterpret_cast<const From*>(from.data());
  To* target = static_cast<To*>(to.raw());
  parallel_ranges(to.size(), 1 << 16, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      if constexpr (std::is_same_v<To, std::int64_t>)
        target[i] = static_cast<To>(source[i]);
      else
        target[i] = To(static_cast<float>(source[i]));
    }
  });
}

std::string plural(std::size_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

}  // namespace

Int4Names::Int4Names(std::string_view weight)
    : packed(fmt::format("{}_packed", weight)),
      scale(fmt::format("{}_scale", weight)),
      shape(fmt::format("{}_shape", weight)) {}

std::string_view int4_weight_of(std::string_view name) {
  for (const std::string_view part : {"_packed", "_scale", "_shape"})
    if (name.ends_with(part) && name.substr(0, name.size() - part.size()).ends_with(".weight"))
      return name.substr(0, name.size() - part.size());
  return {};
}

std::string scale_name(std::string_view weight) {
  return std::string(weight) + "_scale_inv";
}

fs::path file_in_directory(const fs::path& directory, std::string_view name, StoreOptions options) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\\\0", 3)) != std::string_view::npos)
    throw_format_error(fmt::format("{}: \"{}\" is not the plain name of a file in this directory",
                                   directory.string(), name));
  const fs::path path = directory / name;
  std::error_code error;
  if (options.allow_symlinks || !fs::is_symlink(fs::symlink_status(path, error))) return path;
  const fs::path root = fs::canonical(directory, error), real = fs::weakly_canonical(path, error);
  const fs::path relative = real.lexically_relative(root);
  if (relative.empty() || *relative.begin() == "..")
    throw_format_error(
        fmt::format("{} is a symlink that leads out of its directory, to {}; copy the file, or add "
                    "--allow-symlinks "
                    "if you trust the directory",
                    path.string(), real.string()));
  return path;
}

TensorStore TensorStore::open(const fs::path& directory, StoreOptions options) {
  TensorStore store;
  store.directory_ = directory;
  std::error_code error;
  if (!fs::is_directory(directory, error))
    throw IoError(
        fmt::format("{} is not a directory; a model is a directory with config.json and "
                    "model.safetensors or shards of it",
                    directory.string()));
  const auto present = [&](const char* name) {
    return fs::symlink_status(directory / name, error).type() != fs::file_type::not_found;
  };
  const bool single = present(kSingle), indexed = present(kIndex);
  if (single && indexed)
    throw_format_error(fmt::format("{} holds both {} and {}; remove the one that is out of date",
                                   directory.string(), kSingle, kIndex));
  if (!single && !indexed) {
    for (const auto& entry : fs::directory_iterator(directory))
      if (entry.path().extension() == ".safetensors")
        throw_format_error(
            fmt::format("{} holds {} but no {} that names all shards; fetch it as well",
                        directory.string(), entry.path().filename().string(), kIndex));
    throw_format_error(fmt::format("{} holds neither {} nor {}: there are no weights to read",
                                   directory.string(), kSingle, kIndex));
  }

  ShardIndex index;
  if (indexed)
    index = read_index(file_in_directory(directory, kIndex, options));
  else
    index.files.push_back(kSingle);

  std::vector<fs::path> paths;
  std::string missing;
  std::size_t n_missing = 0;
  for (const std::string& name : index.files) {
    paths.push_back(file_in_directory(directory, name, options));
    if (!fs::exists(paths.back(), error) && n_missing++ < 3)
      missing += (missing.empty() ? "" : ", ") + name;
  }
  if (n_missing)
    throw_format_error(fmt::format("{}: {} of {} named in {} missing: {}{}; fetch {} and try again",
                                   directory.string(), n_missing, plural(paths.size(), "shard"),
                                   kIndex, missing, n_missing > 3 ? ", ..." : "",
                                   n_missing == 1 ? "it" : "them"));

  std::vector<std::optional<SafetensorsFile>> files(paths.size());
  parallel_for(static_cast<Index>(paths.size()), [&](Index i) {
    files[static_cast<std::size_t>(i)] = SafetensorsFile::open(paths[static_cast<std::size_t>(i)]);
  });
  for (auto& file : files) store.shards_.push_back(std::move(*file));
  if (store.is_packed() && !options.packed)
    throw_format_error(
        fmt::format("{} holds packed weights, which can be used (generate, chat, serve, eval) but "
                    "neither trained nor converted; give the directory that it was made from",
                    directory.string()));

  std::size_t count = 0;
  for (const auto& file : store.shards_) count += file.tensors().size();
  store.by_name_.reserve(count);
  for (std::size_t s = 0; s < store.shards_.size(); ++s) {
    const SafetensorsFile& file = store.shards_[s];
    for (const TensorInfo& info : file.tensors()) {
      const auto [it, fresh] = store.by_name_.try_emplace(info.name, StoredTensor{&info, &file});
      if (!fresh)
        throw_format_error(fmt::format("tensor {} is both in {} and in {}", info.name,
                                       it->second.file->path().string(), file.path().string()));
      store.total_bytes_ += info.bytes();
      if (!indexed) continue;
      const auto entry = index.shard_of.find(info.name);
      if (entry == index.shard_of.end())
        throw_format_error(fmt::format("{} holds tensor {}, which {} does not name",
                                       file.path().string(), info.name, kIndex));
      if (entry->second != s)
        throw_format_error(fmt::format("tensor {} is in {}, but {} says {}", info.name,
                                       file.path().string(), kIndex, index.files[entry->second]));
    }
  }
  for (const auto& [name, shard] : index.shard_of)
    if (!store.by_name_.contains(name))
      throw_format_error(fmt::format("{} names tensor {} in {}, where it is not",
                                     (directory / kIndex).string(), name, index.files[shard]));
  return store;
}

StoredTensor TensorStore::stored(std::string_view name) const {
  const auto it = by_name_.find(name);
  if (it == by_name_.end())
    throw_format_error(fmt::format("{}: there is no tensor {} among its {}", directory_.string(),
                                   name, plural(by_name_.size(), "tensor")));
  return it->second;
}

bool TensorStore::is_packed() const {
  const Metadata& metadata = shards_.front().metadata();
  const auto format = metadata.find("format");
  return format != metadata.end() && format->second == kPackedFormat;
}

const TensorInfo* TensorStore::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second.info;
}

const TensorInfo& TensorStore::at(std::string_view name) const {
  return *stored(name).info;
}

std::span<const std::byte> TensorStore::bytes(std::string_view name) const {
  const StoredTensor t = stored(name);
  return t.file->bytes(*t.info);
}

void TensorStore::prefetch(std::string_view name) const {
  const StoredTensor t = stored(name);
  t.file->prefetch(*t.info);
}

void TensorStore::drop(std::string_view name) const {
  if (is_int4(name)) {
    const Int4Names names(name);
    for (const std::string& part : {names.packed, names.scale, names.shape}) drop(part);
    return;
  }
  const StoredTensor t = stored(name);
  t.file->drop(*t.info);
}

void TensorStore::check_intact() const {
  for (const SafetensorsFile& file : shards_) file.check_intact();
}

const TensorInfo& TensorStore::scales_of(std::string_view name, Fp8Block block) const {
  const StoredTensor weight = stored(name);
  const auto fail = [&](const std::string& what) {
    throw_format_error(fmt::format("{}: the F8_E4M3 tensor {} {} {}", weight.file->path().string(),
                                   name, to_string(weight.info->shape), what));
  };
  if (weight.info->shape.size() != 2) fail("should be a matrix");
  const std::string its = scale_name(name);
  const TensorInfo* info = find(its);
  if (!info)
    fail(
        fmt::format("needs its scales {}, which are missing; the codes alone mean "
                    "nothing",
                    its));
  const Shape expected{block_count(weight.info->shape[0], block.rows),
                       block_count(weight.info->shape[1], block.columns)};
  if (info->shape != expected)
    fail(fmt::format("has scales {} of shape {}, {} expected with blocks of {}x{}", its,
                     to_string(info->shape), to_string(expected), block.rows, block.columns));
  if (info->dtype != DType::F32 && info->dtype != DType::BF16 && info->dtype != DType::F8_E8M0)
    fail(fmt::format("has scales {} of type {}, F32, BF16 or F8_E8M0 expected", its,
                     name_of(info->dtype)));
  return *info;
}

Tensor TensorStore::read_scales(std::string_view name, Fp8Block block) const {
  const TensorInfo& info = scales_of(name, block);
  Tensor scales = Tensor::uninitialized(info.shape);
  const auto data = bytes(info.name);
  switch (info.dtype) {
    case DType::F32:
      convert<float, float>(data, scales);
      break;
    case DType::BF16:
      convert<float, BF16>(data, scales);
      break;
    default:
      convert<float, UE8M0>(data, scales);
  }
  const auto values = scales.flat();
  for (Index i = 0; i < values.extent(0); ++i)
    if (!std::isfinite(values(i)))
      throw_format_error(fmt::format("{}: tensor {} holds a scale that is not finite",
                                     stored(name).file->path().string(), info.name));
  return scales;
}

bool TensorStore::is_int4(std::string_view name) const {
  return name.ends_with(".weight") && !contains(name) && contains(Int4Names(name).packed);
}

StoredInt4 TensorStore::int4(std::string_view name) const {
  const Int4Names names(name);
  const auto fail = [&](const std::string& tensor, const std::string& what) {
    throw_format_error(
        fmt::format("{}: {} of the 4-bit matrix {} {}", directory_.string(), tensor, name, what));
  };
  for (const std::string& part : {names.packed, names.scale, names.shape})
    if (!contains(part)) fail(part, "is missing");
  const Tensor shape = read_i64(names.shape);
  if (shape.shape() != Shape{2})
    fail(names.shape, fmt::format("is {}; two numbers expected", to_string(shape.shape())));
  const Index n = shape.v1<std::int64_t>()(0), k = shape.v1<std::int64_t>()(1);
  const TensorInfo &packed = at(names.packed), &scale = at(names.scale);
  constexpr Index kMost = Index{1} << 40;
  if (n < 1 || k < 1 || n > kMost || k > kMost || packed.dtype != DType::I32 ||
      packed.shape != Shape{n, (k + kInt4PerWord - 1) / kInt4PerWord})
    fail(names.packed,
         fmt::format("is {} {}; I32 [{}, {}] expected", name_of(packed.dtype),
                     to_string(packed.shape), n, (k + kInt4PerWord - 1) / kInt4PerWord));
  for (const Index group : {32, 128})
    if (scale.dtype == DType::BF16 && scale.shape == Shape{n, (k + group - 1) / group})
      return {view<std::int32_t, 2>(names.packed), view<BF16, 2>(names.scale), k, group};
  fail(names.scale, fmt::format("is {} {}; BF16 [{}, {}] or [{}, {}] expected: groups of 32 or 128",
                                name_of(scale.dtype), to_string(scale.shape), n, (k + 31) / 32, n,
                                (k + 127) / 128));
  return {};
}

std::uint64_t TensorStore::stored_bytes(std::string_view name) const {
  if (!is_int4(name)) return at(name).bytes();
  const Int4Names names(name);
  return at(names.packed).bytes() + at(names.scale).bytes() + at(names.shape).bytes();
}

namespace {

template <class T>
Tensor read_int4(const TensorStore& store, std::string_view name) {
  const StoredInt4 stored = store.int4(name);
  Tensor values = Tensor::uninitialized(stored.shape());
  dequantize_int4(stored.packed, stored.scales, stored.group, values.v2());
  store.check_intact();
  if constexpr (std::is_same_v<T, float>) {
    return values;
  } else {
    Tensor rounded = Tensor::uninitialized(dtype_of<T>, values.shape());
    const View1<const float> from = std::as_const(values).flat();
    const View1<T> to = rounded.flat<T>();
    parallel_ranges(from.extent(0), 1 << 16, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) to(i) = T(from(i));
    });
    return rounded;
  }
}

template <class T>
Tensor read_real(const TensorStore& store, std::string_view name, Fp8Block block) {
  if (store.is_int4(name)) return read_int4<T>(store, name);
  const TensorInfo& info = store.at(name);
  Tensor out = Tensor::uninitialized(dtype_of<T>, info.shape);
  const auto data = store.bytes(name);
  switch (info.dtype) {
    case DType::F64:
      convert<T, double>(data, out);
      break;
    case DType::F32:
      convert<T, float>(data, out);
      break;
    case DType::F16:
      convert<T, F16>(data, out);
      break;
    case DType::BF16:
      convert<T, BF16>(data, out);
      break;
    case DType::F8_E4M3: {
      const Tensor scales = store.read_scales(name, block);
      dequantize_blocks(store.view<E4M3, 2>(name), scales.v2(), block, out.view<T, 2>());
      break;
    }
    default:
      throw_format_error(fmt::format(
          "{}: tensor {} has the element type {}; F32, BF16, F16, F64 or F8_E4M3 expected",
          store.directory().string(), name, name_of(info.dtype)));
  }
  store.check_intact();
  return out;
}

}  // namespace

Tensor TensorStore::read_f32(std::string_view name, Fp8Block block) const {
  return read_real<float>(*this, name, block);
}

Tensor TensorStore::read_bf16(std::string_view name, Fp8Block block) const {
  return read_real<BF16>(*this, name, block);
}

Tensor TensorStore::read_i64(std::string_view name) const {
  const TensorInfo& info = at(name);
  Tensor out = Tensor::uninitialized(DType::I64, info.shape);
  const auto data = bytes(name);
  switch (info.dtype) {
    case DType::I64:
      convert<std::int64_t, std::int64_t>(data, out);
      break;
    case DType::I32:
      convert<std::int64_t, std::int32_t>(data, out);
      break;
    case DType::I16:
      convert<std::int64_t, std::int16_t>(data, out);
      break;
    case DType::I8:
      convert<std::int64_t, std::int8_t>(data, out);
      break;
    case DType::U8:
    case DType::Bool:
      convert<std::int64_t, std::uint8_t>(data, out);
      break;
    default:
      throw_format_error(
          fmt::format("{}: tensor {} has the element type {}; whole numbers expected",
                      directory_.string(), name, name_of(info.dtype)));
  }
  check_intact();
  return out;
}

}  // namespace minke
