#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "io/tensor_store.h"

namespace minke {

ShardedWriter::ShardedWriter(std::filesystem::path directory, std::vector<TensorDecl> tensors,
                             ShardOptions options)
    : directory_(std::move(directory)), options_(std::move(options)) {
  shards_.emplace_back();
  std::uint64_t filled = 0;
  for (TensorDecl& t : tensors) {
    const std::uint64_t bytes = t.bytes();
    if (!shards_.back().empty() && filled + bytes > options_.max_shard_bytes) {
      shards_.emplace_back();
      filled = 0;
    }
    filled += bytes;
    shards_.back().push_back(std::move(t));
  }
  for (auto& shard : shards_) {
    shard = file_order(std::move(shard));
    order_.insert(order_.end(), shard.begin(), shard.end());
  }
  open_next();
}

namespace {

std::string shard_file(std::size_t i, std::size_t n) {
  return n == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, n);
}

}  // namespace

void ShardedWriter::open_next() {
  const std::string name = shard_file(shard_, shards_.size());
  writer_ = std::make_unique<SafetensorsWriter>(directory_ / name, shards_[shard_],
                                                options_.metadata, options_.alignment);
  remaining_ = shards_[shard_].size();
}

void ShardedWriter::write(std::span<const std::byte> bytes) {
  writer_->write(bytes);
  if (--remaining_ > 0 || shard_ + 1 == shards_.size()) return;
  digests_.emplace_back(shard_file(shard_, shards_.size()), writer_->finish());
  ++shard_;
  open_next();
}

std::vector<std::pair<std::string, FileDigest>> ShardedWriter::finish() {
  digests_.emplace_back(shard_file(shard_, shards_.size()), writer_->finish());
  if (shards_.size() > 1) {
    std::uint64_t total = 0;
    nlohmann::json weight_map = nlohmann::json::object();
    for (std::size_t s = 0; s < shards_.size(); ++s)
      for (const TensorDecl& t : shards_[s]) {
        total += t.bytes();
        if (!weight_map.emplace(t.name, shard_file(s, shards_.size())).second)
          throw FormatError(fmt::format("tensor {} is to be written twice", t.name));
      }
    const nlohmann::json index{{"metadata", {{"total_size", total}}},
                               {"weight_map", std::move(weight_map)}};
    FileWriter file(directory_ / "model.safetensors.index.json");
    file.write(index.dump(2) + "\n");
    digests_.emplace_back("model.safetensors.index.json", file.finish());
  }
  return std::move(digests_);
}

}  // namespace minke
