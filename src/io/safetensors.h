// safetensors files: named dense tensors behind a JSON header (8 bytes little-endian header length,
// header, data). Reading maps the file and checks every rule of the format at open; writing
// streams.
//
// The format: https://github.com/huggingface/safetensors, section "Format".
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/files.h"
#include "tensor/tensor.h"

namespace minke {

struct TensorInfo {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;              // empty: a single element
  std::uint64_t begin = 0;  // bytes of the file, header included
  std::uint64_t end = 0;
  std::uint64_t bytes() const { return end - begin; }
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their data
  Metadata metadata;
};

// Reads and checks the header alone, without mapping. FormatError names the file and the tensor.
SafetensorsHeader read_safetensors_header(const std::filesystem::path& path);

// Checks that `info` has the element type and rank of a view, and that a view can be made.
void check_view(const std::filesystem::path& path, const TensorInfo& info, DType dtype, int rank);

class SafetensorsFile {
 public:
  // FormatError or IoError, naming the file and what is wrong. The data is mapped at first use.
  static SafetensorsFile open(const std::filesystem::path& path);
  SafetensorsFile(SafetensorsFile&&) noexcept = default;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept = default;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const Metadata& metadata() const { return header_.metadata; }

  const TensorInfo* find(std::string_view name) const;  // nullptr when absent
  const TensorInfo& at(std::string_view name) const;    // FormatError when absent

  // The tensor's bytes, aligned for its element type: in the mapping, or in a copy kept with this
  // file where the data is not aligned. Valid while this object lives.
  std::span<const std::byte> bytes(const TensorInfo& info) const;

  // FormatError naming the tensor when its element type or rank is another one.
  template <class T, int Rank>
  View<const T, Rank> view(const TensorInfo& info) const {
    check_view(path_, info, dtype_of<T>, Rank);
    std::array<Index, Rank> extents;
    for (int d = 0; d < Rank; ++d) extents[d] = info.shape[static_cast<std::size_t>(d)];
    return {reinterpret_cast<const T*>(bytes(info).data()), extents};
  }
  template <class T, int Rank>
  View<const T, Rank> view(std::string_view name) const {
    return view<T, Rank>(at(name));
  }
  // A copy with the element type of the file.
  Tensor read(std::string_view name) const;

  void prefetch(const TensorInfo& info) const;  // its pages are needed soon
  void drop(const TensorInfo& info) const;      // its pages are not needed any more
  // IoError when the file changed under the mapping: call after reading, before trusting.
  void check_intact() const;

 private:
  struct State;
  SafetensorsFile() = default;
  const MappedFile& mapping() const;

  std::filesystem::path path_;
  SafetensorsHeader header_;
  std::uint64_t file_size_ = 0;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::shared_ptr<State> state_;  // mapping and aligned copies, made on demand by any thread
};

// What a tensor to be written is called and looks like.
struct TensorDecl {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  std::uint64_t bytes() const;
};

// The order of data in a file: wider element types first, so that each tensor is aligned.
std::vector<TensorDecl> file_order(std::vector<TensorDecl> tensors);

// A tensor in memory, to be written.
struct NamedTensorView {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  std::span<const std::byte> bytes;
  static NamedTensorView of(std::string name, const Tensor& tensor);
};

// Writes a file tensor by tensor. The header needs all declarations first; the data then comes in
// the order that order() gives, which is file_order.
class SafetensorsWriter {
 public:
  // The data begins at a multiple of `alignment` bytes of the file, itself a multiple of 8.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDecl> tensors,
                    const Metadata& metadata = {{"format", "pt"}}, std::size_t alignment = 8);
  const std::vector<TensorDecl>& order() const { return order_; }
  // The whole data of the next tensor of order().
  void write(std::span<const std::byte> bytes);
  FileDigest finish();  // every byte is on disk, or IoError

 private:
  std::vector<TensorDecl> order_;
  std::size_t next_ = 0;
  FileWriter file_;
};

// Writes beside `path` and renames: the file is whole or as before. "format": "pt" is what the
// Hugging Face libraries expect to find.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensorView> tensors,
                       const Metadata& metadata = {{"format", "pt"}});

}  // namespace minke
