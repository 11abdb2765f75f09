// The prefix cache on disk: blocks outlive the process that computed them.
//
// One file a block, under DIRECTORY/IDENTITY/. It holds the tokens from the beginning of the prompt
// to the end of the block, the page, and a checksum; it is written beside its place and renamed. A
// file that is torn, damaged or another model's is ignored and removed. The identity is a hash of
// the configuration, the arithmetic, the instruction set and what the model computes for a fixed
// prompt: rows are used again only where a fresh run would make the same bits. The directory of an
// identity can be read by its owner alone: prompts are in it.
#pragma once
#include <filesystem>

#include "infer/prefix_cache.h"

namespace minke {

class PrefixStore {
 public:
  // Runs the model once, for its identity. Makes the directory; IoError when that fails.
  PrefixStore(const std::filesystem::path& directory, const Model& model, const PageLayout& layout);

  // Blocks on disk into free pages, beginnings first (more prompts share them), until no page is
  // free. Returns how many.
  Index load(PrefixCache& cache, PagePool& pool) const;
  // Writes the blocks that are not there yet and removes those that the cache has dropped, so that
  // the disk holds no more than the cache. IoError when the disk is full.
  void save(const PrefixCache& cache, const PagePool& pool) const;

 private:
  std::filesystem::path file_of(std::span<const std::int32_t> prefix) const;

  std::filesystem::path directory_;
  std::uint64_t identity_;
};

}  // namespace minke
