#include "io/safetensors.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "io/json_scanner.h"

namespace minke {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kMaxRank = 64;

template <class... Args>
[[noreturn]] void bad(const std::filesystem::path& path, fmt::format_string<Args...> format,
                      Args&&... args) {
  throw_format_error(path.string() + ": " + fmt::format(format, std::forward<Args>(args)...));
}

// One entry: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, each member once.
TensorInfo scan_entry(JsonScanner& json, const std::filesystem::path& path, std::string name) {
  TensorInfo info;
  info.name = std::move(name);
  bool dtype = false, shape = false, offsets = false;
  json.object([&](const std::string& key) {
    bool* seen = key == "dtype"          ? &dtype
                 : key == "shape"        ? &shape
                 : key == "data_offsets" ? &offsets
                                         : nullptr;
    if (!seen) bad(path, "tensor {} has an unknown header field \"{}\"", info.name, key);
    if (*seen) bad(path, "tensor {} has the header field \"{}\" twice", info.name, key);
    *seen = true;
    if (seen == &dtype) {
      const std::string type = json.string();
      if (!parse_dtype(type, info.dtype))
        bad(path, "tensor {} has the element type {}, which minke does not read", info.name, type);
    } else if (seen == &shape) {
      json.array([&] {
        const std::uint64_t extent = json.unsigned_integer();
        if (extent > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
          bad(path, "tensor {} has an extent of {}", info.name, extent);
        if (info.shape.size() == kMaxRank)
          bad(path, "tensor {} has too many dimensions", info.name);
        info.shape.push_back(static_cast<Index>(extent));
      });
    } else {
      std::array<std::uint64_t, 2> at{};
      std::size_t n = 0;
      json.array([&] {
        const std::uint64_t v = json.unsigned_integer();
        if (n < 2) at[n] = v;
        ++n;
      });
      if (n != 2) bad(path, "tensor {} has {} data_offsets, 2 expected", info.name, n);
      info.begin = at[0], info.end = at[1];
    }
  });
  if (!dtype || !shape || !offsets)
    bad(path, "tensor {} lacks \"{}\" in the header", info.name,
        !dtype   ? "dtype"
        : !shape ? "shape"
                 : "data_offsets");
  return info;
}

// shape * element size = end - begin. No product of some extents overflows, those of an empty
// tensor included: views multiply them.
void check_size(const std::filesystem::path& path, const TensorInfo& info) {
  Index largest = static_cast<Index>(size_of(info.dtype));
  bool empty = false;
  for (Index extent : info.shape) {
    empty |= extent == 0;
    if (__builtin_mul_overflow(largest, std::max<Index>(extent, 1), &largest))
      bad(path, "tensor {} of shape {} is too large for any file", info.name,
          to_string(info.shape));
  }
  const std::uint64_t bytes = empty ? 0 : static_cast<std::uint64_t>(largest);
  if (info.end < info.begin || info.end - info.begin != bytes)
    bad(path, "tensor {}: {} {} takes {} bytes, but its data_offsets are [{}, {}]", info.name,
        name_of(info.dtype), to_string(info.shape), bytes, info.begin, info.end);
}

SafetensorsHeader read_header(const std::filesystem::path& path, const FileReader& file) {
  if (file.size() < 8)
    bad(path, "{} bytes, too short for a safetensors file; it may be truncated", file.size());
  std::array<std::byte, 8> raw;
  file.pread_exact(0, raw);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<std::uint64_t>(raw[i]);
  if (length > kMaxHeader)
    bad(path, "the header claims {} bytes, at most {} are allowed; is it a safetensors file?",
        length, kMaxHeader);
  if (length > file.size() - 8)
    bad(path, "the header claims {} bytes but the file has {}; it may be truncated", length,
        file.size());
  std::string text(length, '\0');
  file.pread_exact(8, {reinterpret_cast<std::byte*>(text.data()), text.size()});
  if (text.empty() || text[0] != '{')
    bad(path, "the header does not start with '{{'; is it a safetensors file?");

  SafetensorsHeader header;
  const std::string file_name = path.string();
  JsonScanner json(text, file_name);
  bool has_metadata = false;
  json.object([&](std::string key) {
    if (key != "__metadata__") {
      header.tensors.push_back(scan_entry(json, path, std::move(key)));
      return;
    }
    if (std::exchange(has_metadata, true)) bad(path, "the header has __metadata__ twice");
    json.object([&](std::string name) {
      std::string value = json.string();
      if (!header.metadata.emplace(name, std::move(value)).second)
        bad(path, "__metadata__ has \"{}\" twice", name);
    });
  });
  json.end();

  // No duplicate names, then no hole and no overlap up to the last byte of the file.
  auto& tensors = header.tensors;
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo& info : tensors) names.push_back(info.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    bad(path, "tensor {} is in the header twice", *twice);
  for (const TensorInfo& info : tensors) check_size(path, info);
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::uint64_t start = 8 + length, data_size = file.size() - start;
  std::uint64_t at = 0;
  for (TensorInfo& info : tensors) {
    if (info.begin != at)
      bad(path, "the data of tensor {} begins at {}, {} expected: there is {}", info.name,
          info.begin, at, info.begin > at ? "a hole before it" : "an overlap");
    at = info.end;
    if (at > data_size)
      bad(path, "tensor {} ends at byte {} of the data, which has {}; the file may be truncated",
          info.name, at, data_size);
    info.begin += start, info.end += start;
  }
  if (at != data_size)
    bad(path, "the header describes {} bytes of data but the file holds {}", at, data_size);
  return header;
}

}  // namespace

SafetensorsHeader read_safetensors_header(const std::filesystem::path& path) {
  return read_header(path, FileReader(path));
}

void check_view(const std::filesystem::path& path, const TensorInfo& info, DType dtype, int rank) {
  if (info.dtype != dtype || static_cast<int>(info.shape.size()) != rank)
    bad(path, "tensor {} is {} {}, but {} with {} dimensions is expected", info.name,
        name_of(info.dtype), to_string(info.shape), name_of(dtype), rank);
}

struct SafetensorsFile::State {
  std::once_flag once;
  MappedFile file;
  std::mutex mutex;                         // guards `aligned`
  std::map<std::uint64_t, Tensor> aligned;  // copies by begin
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.path_ = path;
  {
    const FileReader reader(path);
    file.file_size_ = reader.size();
    file.header_ = read_header(path, reader);
  }
  file.by_name_.reserve(file.header_.tensors.size());
  for (std::size_t i = 0; i < file.header_.tensors.size(); ++i)
    file.by_name_.emplace(file.header_.tensors[i].name, i);
  file.state_ = std::make_shared<State>();
  return file;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &header_.tensors[it->second];
}

const TensorInfo& SafetensorsFile::at(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info) bad(path_, "there is no tensor {}", name);
  return *info;
}

const MappedFile& SafetensorsFile::mapping() const {
  std::call_once(state_->once, [&] {
    MappedFile file = MappedFile::open(path_);
    if (file.bytes().size() != file_size_)
      throw IoError(fmt::format("{}: the file had {} bytes when it was opened and has {} now",
                                path_.string(), file_size_, file.bytes().size()));
    state_->file = std::move(file);
  });
  return state_->file;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& info) const {
  if (info.begin == info.end) return {};
  const auto mapped = mapping().bytes().subspan(info.begin, info.bytes());
  if (info.begin % size_of(info.dtype) == 0) return mapped;
  const std::lock_guard lock(state_->mutex);
  auto [it, fresh] = state_->aligned.try_emplace(info.begin);
  if (fresh) {
    it->second = Tensor::uninitialized(info.dtype, info.shape);
    std::memcpy(it->second.raw(), mapped.data(), mapped.size());
  }
  return {static_cast<const std::byte*>(it->second.raw()), mapped.size()};
}

Tensor SafetensorsFile::read(std::string_view name) const {
  const TensorInfo& info = at(name);
  Tensor t = Tensor::uninitialized(info.dtype, info.shape);
  if (info.bytes()) std::memcpy(t.raw(), mapping().bytes().data() + info.begin, info.bytes());
  check_intact();
  return t;
}

void SafetensorsFile::prefetch(const TensorInfo& info) const {
  if (info.bytes()) mapping().prefetch(info.begin, info.end);
}

void SafetensorsFile::drop(const TensorInfo& info) const {
  if (!info.bytes()) return;
  mapping().drop(info.begin, info.end);
  const std::lock_guard lock(state_->mutex);
  state_->aligned.erase(info.begin);
}

void SafetensorsFile::check_intact() const {
  state_->file.check_intact();
}

std::uint64_t TensorDecl::bytes() const {
  return static_cast<std::uint64_t>(element_count(shape)) * size_of(dtype);
}

NamedTensorView NamedTensorView::of(std::string name, const Tensor& tensor) {
  return {std::move(name),
          tensor.dtype(),
          tensor.shape(),
          {static_cast<const std::byte*>(tensor.raw()), tensor.bytes()}};
}

std::vector<TensorDecl> file_order(std::vector<TensorDecl> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorDecl& a, const TensorDecl& b) {
    if (size_of(a.dtype) != size_of(b.dtype)) return size_of(a.dtype) > size_of(b.dtype);
    return a.name < b.name;
  });
  return tensors;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorDecl> tensors, const Metadata& metadata,
                                     std::size_t alignment)
    : order_(file_order(std::move(tensors))), file_(path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  std::string text = header.dump();
  text.pop_back();
  bool first = metadata.empty();
  std::unordered_set<std::string_view> names;
  for (const TensorDecl& t : order_) {
    if (!names.insert(t.name).second) bad(path, "tensor {} is to be written twice", t.name);
    if (t.name == "__metadata__") throw_format_error("a tensor cannot be named __metadata__");
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[", first ? "" : ",",
                        nlohmann::json(t.name).dump(), name_of(t.dtype));
    first = false;
    for (std::size_t d = 0; d < t.shape.size(); ++d)
      text += fmt::format("{}{}", d ? "," : "", t.shape[d]);
    text += fmt::format("],\"data_offsets\":[{},{}]}}", at, at + t.bytes());
    at += t.bytes();
  }
  text += '}';
  text.append((alignment - (8 + text.size()) % alignment) % alignment, ' ');
  if (text.size() > kMaxHeader)
    bad(path, "{} tensors need a header of {} bytes, at most {} are allowed; use more shards",
        order_.size(), text.size(), kMaxHeader);
  std::array<std::byte, 8> length;
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = static_cast<std::byte>(std::uint64_t{text.size()} >> (8 * i));
  file_.write(length);
  file_.write(text);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (next_ == order_.size() || bytes.size() != order_[next_].bytes())
    throw_format_error(fmt::format(
        "{}: {} bytes offered for {}", file_.path().string(), bytes.size(),
        next_ == order_.size()
            ? "no tensor"
            : fmt::format("tensor {} of {}", order_[next_].name, order_[next_].bytes())));
  file_.write(bytes);
  ++next_;
}

FileDigest SafetensorsWriter::finish() {
  if (next_ != order_.size())
    bad(file_.path(), "tensor {} was declared but not written", order_[next_].name);
  return file_.finish();
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensorView> tensors,
                       const Metadata& metadata) {
  std::vector<TensorDecl> decls;
  std::map<std::string_view, std::span<const std::byte>> data;
  for (const NamedTensorView& t : tensors) {
    decls.push_back({t.name, t.dtype, t.shape});
    if (!data.emplace(t.name, t.bytes).second)
      bad(path, "tensor {} is to be written twice", t.name);
  }
  AtomicFile file(path);
  SafetensorsWriter writer(file.partial(), std::move(decls), metadata);
  for (const TensorDecl& t : writer.order()) writer.write(data.at(t.name));
  writer.finish();
  file.commit();
}

}  // namespace minke
