// Text to train and to measure on, as documents.
//
//   .jsonl   one document a line: {"text": "...", "source": "name"}; other keys are ignored, a
//   missing
//            source is the file's name without its ending
//   .txt     one document; form feeds, where there are any, separate documents
//   folder   every .jsonl and .txt below it, sorted by path; hidden names and other endings are
//   left
//            out. The source of a .txt is then the name of its folder.
//
// All text is UTF-8 (a byte-order mark at the beginning is dropped). What is not gives a
// FormatError with file, line and what is wrong; an unreadable file an IoError.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/function_ref.h"

namespace minke {

struct Document {
  std::string text;
  std::string source;  // what results are reported by
  std::string path;
  std::int64_t line = 1;  // of the file, where the document begins
};

// Gives the documents in order to `take`, one file in memory at a time (of .jsonl: one line).
void read_documents(const std::filesystem::path& path, FunctionRef<void(Document)> take);

// All documents of all paths. FormatError when there are none.
std::vector<Document> load_documents(const std::vector<std::string>& paths);

}  // namespace minke
