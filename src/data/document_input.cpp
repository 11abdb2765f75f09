#include "data/document_input.h"

#include "base/error.h"

namespace minke {
namespace {

constexpr std::size_t kMostItems = 1 << 16;

// The message without the path with which it begins: what it is printed behind has it.
std::string without_path(const InputFile& file, const std::string& message) {
  const std::string begin = file.path.string() + ": ";
  return message.starts_with(begin) ? message.substr(begin.size()) : message;
}

FileProblem unreadable(const InputFile& file, const std::string& message) {
  return {FileProblem::Kind::Unreadable, file.path.string(), without_path(file, message)};
}

}  // namespace

DocumentInput::DocumentInput(const std::vector<InputFile>& files, std::size_t longest_item,
                             InputPosition from)
    : files_(files), longest_item_(longest_item), position_(from) {
  for (std::int64_t i = 0; i < from.file; ++i)
    bytes_before_ += files[static_cast<std::size_t>(i)].bytes;
}

bool DocumentInput::open(InputBatch& batch) {
  const InputFile& file = files_[static_cast<std::size_t>(position_.file)];
  try {
    reader_.emplace(file.path, file.form, longest_item_, position_.item);
    return true;
  } catch (const Error& error) {
    batch.failure = unreadable(file, error.what());
    return false;
  }
}

void DocumentInput::next_file() {
  bytes_before_ += files_[static_cast<std::size_t>(position_.file)].bytes;
  reader_.reset();
  position_ = {position_.file + 1, {}};
}

bool DocumentInput::next(InputBatch& batch, std::size_t bytes) {
  batch.items.clear();
  batch.failure.reset();
  const auto n = static_cast<std::int64_t>(files_.size());
  for (std::size_t taken = 0; position_.file < n && taken < bytes;) {
    if (batch.items.size() >= kMostItems) break;
    if (!reader_ && !open(batch)) {
      next_file();
      break;
    }
    const InputFile& file = files_[static_cast<std::size_t>(position_.file)];
    InputItem next{position_.file, {}};
    if (reader_->next(next.item)) {
      if (!next.item.why.empty()) next.item.why = without_path(file, next.item.why);
      taken += next.item.bytes.size();
      batch.items.push_back(std::move(next));
      position_.item = reader_->position();
      continue;
    }
    if (!reader_->failure().empty()) batch.failure = unreadable(file, reader_->failure());
    next_file();
    if (batch.failure) break;
  }
  return !batch.items.empty() || batch.failure.has_value();
}

std::uint64_t DocumentInput::consumed() const {
  return bytes_before_ + (reader_ ? reader_->consumed() : 0);
}

}  // namespace minke
