#include "data/shard_writer.h"

#include <fmt/format.h>

#include <utility>

namespace minke {
std::string shard_name(Split split, std::int64_t number) {
  return fmt::format("{}-{:05}", name_of(split), number);
}

ShardWriter::ShardWriter(std::filesystem::path directory, Split split, int id_bytes,
                         std::int64_t shard_tokens, ShardState state)
    : directory_(std::move(directory)),
      split_(split),
      id_bytes_(id_bytes),
      shard_tokens_(shard_tokens),
      shard_(state.shard) {
  if (state.index_bytes > 0) open(state.tokens_bytes, state.index_bytes);
}

void ShardWriter::open(std::uint64_t tokens_bytes, std::uint64_t index_bytes) {
  const std::string name = shard_name(split_, shard_);
  tokens_.emplace(directory_ / (name + ".tokens"), tokens_bytes);
  index_.emplace(directory_ / (name + ".index"), index_bytes);
}

void ShardWriter::close() {
  if (!tokens_) return;
  sync();
  tokens_.reset();
  index_.reset();
  ++shard_;
}

void ShardWriter::add(std::span<const std::int32_t> ids, std::uint32_t source,
                      std::uint64_t text_bytes) {
  if (!tokens_) open(0, 0);
  const auto width = static_cast<std::uint64_t>(id_bytes_);
  const ShardDocument entry{.begin = tokens_->length() / width,
                            .text_bytes = text_bytes,
                            .tokens = static_cast<std::uint32_t>(ids.size()),
                            .source = source};
  if (id_bytes_ == 2) {
    const std::vector<std::uint16_t> narrow(ids.begin(), ids.end());
    tokens_->write(std::as_bytes(std::span(narrow)));
  } else {
    tokens_->write(std::as_bytes(ids));
  }
  index_->write(std::as_bytes(std::span(&entry, 1)));
  if (tokens_->length() / width >= static_cast<std::uint64_t>(shard_tokens_)) close();
}

ShardState ShardWriter::sync() {
  ShardState state{.shard = shard_};
  if (tokens_) state.tokens_bytes = tokens_->sync(), state.index_bytes = index_->sync();
  return state;
}

std::int64_t ShardWriter::finish() {
  close();
  return shard_;
}

}  // namespace minke
