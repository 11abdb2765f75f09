#include "data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "data/json_document.h"
#include "text/utf8.h"

namespace minke {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

void drop_byte_order_mark(std::string& text) {
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
}

void check_utf8(std::string_view text, const std::string& path, std::int64_t first_line) {
  const std::size_t bad = find_invalid_utf8(text);
  if (bad == kValidUtf8) return;
  const auto line =
      first_line + std::count(text.begin(), text.begin() + static_cast<long>(bad), '\n');
  const std::size_t begin = bad == 0 ? 0 : text.rfind('\n', bad - 1) + 1;  // npos + 1 is 0
  throw FormatError(
      fmt::format("{}: line {}: byte {} of the line (0x{:02X}) is not UTF-8; convert the file, for "
                  "example with "
                  "iconv -t UTF-8",
                  path, line, bad - begin + 1, static_cast<unsigned char>(text[bad])));
}

void read_txt(const fs::path& path, const std::string& source, FunctionRef<void(Document)> take) {
  std::string content = read_file(path);
  drop_byte_order_mark(content);
  check_utf8(content, path.string(), 1);
  std::int64_t line = 1;
  for (std::size_t begin = 0; begin <= content.size();) {
    const std::size_t end = std::min(content.find('\f', begin), content.size());
    std::string text = content.substr(begin, end - begin);
    const std::int64_t lines = std::count(text.begin(), text.end(), '\n');
    take({std::move(text), source, path.string(), line});
    line += lines;
    begin = end + 1;
  }
}

Document document_of_line(const std::string& content, const std::string& path, std::int64_t line,
                          const std::string& default_source) {
  check_utf8(content, path, line);
  JsonDocument document;
  if (const auto problem = parse_json_document(content, "text", "source", document))
    throw FormatError(fmt::format("{}: line {}: {}", path, line, problem->what));
  return {std::move(document.text), document.source.value_or(default_source), path, line};
}

void read_jsonl(const fs::path& path, FunctionRef<void(Document)> take) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw_io_error("cannot open " + path.string(), errno);
  const std::string source = path.stem().string();
  std::string content;
  for (std::int64_t line = 1; std::getline(in, content); ++line) {
    if (line == 1) drop_byte_order_mark(content);
    if (content.find_first_not_of(" \t\r") == std::string::npos) continue;
    take(document_of_line(content, path.string(), line, source));
  }
  if (in.bad()) throw IoError("cannot read " + path.string());
}

bool is_text_file(const fs::path& path) {
  return path.extension() == ".jsonl" || path.extension() == ".txt";
}

bool is_hidden(const fs::path& path) {
  return path.filename().string().starts_with(".");
}

std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  auto entry = fs::recursive_directory_iterator(directory, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (is_hidden(entry->path())) {
      entry.disable_recursion_pending();
    } else if (is_text_file(entry->path()) && entry->is_regular_file()) {
      files.push_back(entry->path());
    }
  }
  if (error) throw_io_error("cannot read the folder " + directory.string(), error.value());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

void read_documents(const fs::path& path, FunctionRef<void(Document)> take) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw_io_error("cannot open " + path.string(), ENOENT);
  if (fs::is_directory(status)) {
    for (const fs::path& file : files_below(path)) {
      if (file.extension() == ".jsonl")
        read_jsonl(file, take);
      else
        read_txt(file, fs::absolute(file).parent_path().filename().string(), take);
    }
  } else if (path.extension() == ".jsonl") {
    read_jsonl(path, take);
  } else if (path.extension() == ".txt") {
    read_txt(path, path.stem().string(), take);
  } else {
    throw FormatError(path.string() +
                      ": the ending is neither .jsonl nor .txt; rename the file by "
                      "what it holds");
  }
}

std::vector<Document> load_documents(const std::vector<std::string>& paths) {
  std::vector<Document> documents;
  for (const std::string& path : paths)
    read_documents(path, [&](Document document) {
      if (!document.text.empty()) documents.push_back(std::move(document));
    });
  if (documents.empty()) {
    std::string list;
    for (const std::string& path : paths) list += (list.empty() ? "" : ", ") + path;
    throw FormatError(fmt::format("no text in {}; expected .jsonl or .txt files that are not empty",
                                  paths.empty() ? "the data (no path was given)" : list));
  }
  return documents;
}

}  // namespace minke
