// A file cut into the items that hold one document each: the lines of a .jsonl, what form feeds
// separate in a text. One item is in memory at a time; one that is longer than a limit is streamed
// past without being held.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/byte_stream.h"

namespace minke {

enum class TextForm { JsonLines, Text };

struct Item {
  enum class Defect { None, TooLong, Truncated };

  std::string bytes;       // without the separator; empty when it is too long
  std::uint64_t size = 0;  // bytes, also when it is too long
  std::int64_t line = 1;   // of the file, where it begins
  Defect defect = Defect::None;
  std::string why;  // it is truncated: what failure() says
};

// Where the next item begins; a reader that is given it goes on there.
struct ItemPosition {
  std::uint64_t offset = 0;  // bytes of the decompressed file
  std::int64_t line = 1;
  bool operator==(const ItemPosition&) const = default;
};

class ItemReader {
 public:
  // IoError when the file cannot be opened.
  ItemReader(const std::filesystem::path& path, TextForm form, std::size_t longest_item,
             ItemPosition from = {});

  // False at the end. Blank lines of JSON lines and a text's empty items are passed over; a
  // byte-order mark at the beginning of the file belongs to none. Where the file cannot be read
  // on (damaged compression, an error of the disk) the item that was begun is the last, Truncated,
  // and failure() says why.
  bool next(Item& item);

  const ItemPosition& position() const { return position_; }
  const std::string& failure() const { return failure_; }
  std::uint64_t consumed() const { return stream_->consumed(); }

 private:
  bool fill();
  bool take_raw(Item& item);

  std::unique_ptr<ByteStream> stream_;
  TextForm form_;
  std::size_t longest_item_;
  ItemPosition position_;
  std::vector<char> buffer_;
  std::size_t at_ = 0, size_ = 0;  // what is left of buffer_
  std::string failure_;
};

}  // namespace minke
