// The items of many files in their order, in batches of bounded size, from any position on.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "data/input_files.h"
#include "data/item_reader.h"

namespace minke {

struct InputPosition {
  std::int64_t file = 0;
  ItemPosition item;
  bool operator==(const InputPosition&) const = default;
};

struct InputItem {
  std::int64_t file = 0;
  Item item;
};

struct InputBatch {
  std::vector<InputItem> items;
  // The file after whose last item the batch ends could not be opened or read on.
  std::optional<FileProblem> failure;
};

class DocumentInput {
 public:
  // `files` must outlive it.
  DocumentInput(const std::vector<InputFile>& files, std::size_t longest_item,
                InputPosition from = {});

  // The next items, about `bytes` of them; one may be as long as the longest item. False when
  // there are none. A batch ends where a file fails, so that the order of items and failures does
  // not depend on where batches begin.
  bool next(InputBatch& batch, std::size_t bytes);

  const InputPosition& position() const { return position_; }
  std::uint64_t consumed() const;  // bytes of files, compressed as they are

 private:
  bool open(InputBatch& batch);
  void next_file();

  const std::vector<InputFile>& files_;
  std::size_t longest_item_;
  InputPosition position_;
  std::optional<ItemReader> reader_;
  std::uint64_t bytes_before_ = 0;  // of the files before this one
};

}  // namespace minke
