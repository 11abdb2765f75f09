#include "data/item_reader.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace minke {
namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_blank(std::string_view bytes) {
  return bytes.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

ItemReader::ItemReader(const std::filesystem::path& path, TextForm form, std::size_t longest_item,
                       ItemPosition from)
    : stream_(open_byte_stream(path, compression_of(path))),
      form_(form),
      longest_item_(longest_item),
      position_(from),
      buffer_(kBuffer) {
  try {
    stream_->skip(from.offset);
  } catch (const Error& error) {
    failure_ = error.what();
  }
}

bool ItemReader::fill() {
  if (!failure_.empty()) return false;
  try {
    at_ = 0;
    size_ = stream_->read(buffer_);
  } catch (const Error& error) {
    size_ = 0;
    failure_ = error.what();
  }
  return size_ > 0;
}

// One item with what follows up to its separator, blank or not.
bool ItemReader::take_raw(Item& item) {
  const char separator = form_ == TextForm::JsonLines ? '\n' : '\f';
  const std::uint64_t begin = position_.offset;
  item.bytes.clear();
  item.size = 0;
  item.why.clear();
  item.line = position_.line;
  item.defect = Item::Defect::None;
  for (bool ended = false; !ended && (at_ < size_ || fill());) {
    const auto from = buffer_.begin() + static_cast<long>(at_);
    const auto to = buffer_.begin() + static_cast<long>(size_);
    const auto found = std::find(from, to, separator);
    ended = found != to;
    const auto length = static_cast<std::size_t>(found - from);
    if (item.defect == Item::Defect::None && item.bytes.size() + length > longest_item_) {
      item.defect = Item::Defect::TooLong;
      std::string().swap(item.bytes);  // its memory as well
    }
    if (item.defect == Item::Defect::None) item.bytes.append(from, found);
    item.size += length;
    const std::size_t taken = length + (ended ? 1 : 0);
    position_.line += std::count(from, from + static_cast<long>(taken), '\n');
    position_.offset += taken;
    at_ += taken;
  }
  if (position_.offset == begin) return false;
  if (!failure_.empty() && at_ == size_ && item.defect == Item::Defect::None)
    item.defect = Item::Defect::Truncated, item.why = failure_;
  return true;
}

bool ItemReader::next(Item& item) {
  while (true) {
    const bool first = position_.offset == 0;
    if (!take_raw(item)) return false;
    if (first && item.bytes.starts_with(kByteOrderMark)) item.bytes.erase(0, kByteOrderMark.size());
    if (item.defect == Item::Defect::TooLong) return true;
    if (item.bytes.empty() || (form_ == TextForm::JsonLines && is_blank(item.bytes))) continue;
    return true;
  }
}

}  // namespace minke
