// The weights of a model directory as one store: model.safetensors, or the shards that
// model.safetensors.index.json names. Looking up a tensor does not touch its data.
#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/safetensors.h"
#include "tensor/fp8_blocks.h"
#include "tensor/int4_groups.h"
#include "tensor/tensor.h"

namespace minke {

struct StoreOptions {
  // A weight file may be a symlink that leads out of the directory, as in Hugging Face's cache.
  bool allow_symlinks = false;
  // Weights in the order of products (model/packed_checkpoint.h) are wanted or known what to do
  // with; else they are refused.
  bool packed = false;
};

// "format" in the metadata of files with packed weights.
inline constexpr std::string_view kPackedFormat = "minke packed";

struct StoredTensor {
  const TensorInfo* info = nullptr;
  const SafetensorsFile* file = nullptr;
};

// A matrix of 4 bits as it lies in a store (tensor/int4_groups.h).
struct StoredInt4 {
  View2<const std::int32_t> packed;
  View2<const BF16> scales;
  Index k, group;
  Shape shape() const { return {packed.extent(0), k}; }
};

class TensorStore {
 public:
  // Reads and checks every header, in parallel. FormatError or IoError names the file, and the
  // tensor if it is about one.
  static TensorStore open(const std::filesystem::path& directory, StoreOptions options = {});
  TensorStore(TensorStore&&) noexcept = default;
  TensorStore& operator=(TensorStore&&) noexcept = default;

  const std::filesystem::path& directory() const { return directory_; }
  std::size_t size() const { return by_name_.size(); }
  std::uint64_t total_bytes() const { return total_bytes_; }  // of tensor data
  const std::deque<SafetensorsFile>& shards() const { return shards_; }
  bool is_packed() const;  // StoreOptions::packed
  // each(StoredTensor), in the order of shards and of data in them.
  template <class Each>
  void for_each(Each each) const {
    for (const SafetensorsFile& file : shards_)
      for (const TensorInfo& info : file.tensors()) each(StoredTensor{&info, &file});
  }

  bool contains(std::string_view name) const { return by_name_.contains(name); }
  const TensorInfo* find(std::string_view name) const;  // nullptr when absent
  const TensorInfo& at(std::string_view name) const;    // FormatError when absent

  // As SafetensorsFile; valid while the store lives.
  std::span<const std::byte> bytes(std::string_view name) const;
  template <class T, int Rank>
  View<const T, Rank> view(std::string_view name) const {
    const StoredTensor t = stored(name);
    return t.file->view<T, Rank>(*t.info);
  }
  void prefetch(std::string_view name) const;
  void drop(std::string_view name) const;
  // IoError when a mapped file changed underneath: call after reading, before trusting.
  void check_intact() const;

  // A copy as FP32: from F32, F64, F16, BF16, F8_E4M3 with its scales (value = code * scale), or
  // the 4-bit matrix of this name.
  // `block` is quantization_config.weight_block_size. FormatError for other types.
  Tensor read_f32(std::string_view name, Fp8Block block = kWeightBlock) const;
  // A copy as BF16 [same types]: F32 and F64 rounded once, F8_E4M3 by the published dequantisation.
  Tensor read_bf16(std::string_view name, Fp8Block block = kWeightBlock) const;
  // A copy as I64, from I64, I32, I16, I8, U8 or BOOL.
  Tensor read_i64(std::string_view name) const;
  // NAME_scale_inv, the scales of the F8_E4M3 matrix `name` ("...weight"): F32, BF16 or F8_E8M0
  // [ceil(N/rows), ceil(K/columns)]. FormatError when missing or of another shape or type.
  const TensorInfo& scales_of(std::string_view name, Fp8Block block = kWeightBlock) const;
  // Its values as FP32. FormatError also when one is not finite.
  Tensor read_scales(std::string_view name, Fp8Block block = kWeightBlock) const;

  // Whether "X.weight" is stored in 4 bits: as X.weight_packed I32 [N, ceil(K / 8)],
  // X.weight_scale BF16 [N, ceil(K / group)] and X.weight_shape [N, K], group 32 or 128.
  bool is_int4(std::string_view name) const;
  // FormatError when one of the three is missing or of another shape or type.
  StoredInt4 int4(std::string_view name) const;
  // Bytes of a tensor, or of the three that make a 4-bit matrix.
  std::uint64_t stored_bytes(std::string_view name) const;

 private:
  TensorStore() = default;
  StoredTensor stored(std::string_view name) const;

  std::filesystem::path directory_;
  std::deque<SafetensorsFile> shards_;
  std::unordered_map<std::string_view, StoredTensor> by_name_;
  std::uint64_t total_bytes_ = 0;
};

// The name of the scales of an FP8 weight: "X.weight" -> "X.weight_scale_inv".
std::string scale_name(std::string_view weight);
// The tensors of a 4-bit matrix "X.weight".
struct Int4Names {
  explicit Int4Names(std::string_view weight);
  std::string packed, scale, shape;
};
// "X.weight" of "X.weight_packed", "X.weight_scale" or "X.weight_shape"; empty for other names.
std::string_view int4_weight_of(std::string_view name);

// DIR/NAME, when NAME is the plain name of a file in DIR. FormatError for "../x", absolute paths,
// and symlinks that lead out of DIR unless allowed.
std::filesystem::path file_in_directory(const std::filesystem::path& directory,
                                        std::string_view name, StoreOptions options);

struct ShardOptions {
  std::uint64_t max_shard_bytes = 5'000'000'000;
  Metadata metadata = {{"format", "pt"}};
  std::size_t alignment = 8;  // of the data in each file
};

// Writes tensors into `directory` as model.safetensors or, when they are more than one shard,
// as model-00001-of-0000N.safetensors with model.safetensors.index.json, as Hugging Face does.
// A tensor larger than a shard gets one of its own.
class ShardedWriter {
 public:
  // Tensors are packed into shards in the order given.
  ShardedWriter(std::filesystem::path directory, std::vector<TensorDecl> tensors,
                ShardOptions options = {});
  // The order in which data must come (each shard in the order of its file).
  const std::vector<TensorDecl>& order() const { return order_; }
  void write(std::span<const std::byte> bytes);  // the next tensor of order(), whole
  // Everything is on disk. Gives name and digest of every file, for AtomicDirectory::record.
  std::vector<std::pair<std::string, FileDigest>> finish();

 private:
  void open_next();

  std::filesystem::path directory_;
  ShardOptions options_;
  std::vector<std::vector<TensorDecl>> shards_;
  std::vector<TensorDecl> order_;
  std::size_t shard_ = 0;      // next to be opened
  std::size_t remaining_ = 0;  // tensors that the open shard still waits for
  std::unique_ptr<SafetensorsWriter> writer_;
  std::vector<std::pair<std::string, FileDigest>> digests_;
};

}  // namespace minke
