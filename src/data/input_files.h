// The files that paths of a user stand for, in an order that depends on names alone.
//
//   .jsonl           one document a line: {"text": "...", "source": "name"}
//   .txt .md ...     text; form feeds, where there are any, separate documents
//   .gz .zst         after one of these: compressed
//   a folder         every such file below it, by path; hidden names are left out
//
// Links are followed. The source of a .jsonl document without one is the file's name without
// endings; that of a text is the same, or in a folder the name of its folder.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/item_reader.h"

namespace minke {

struct InputFile {
  std::filesystem::path path;
  std::string default_source;
  TextForm form = TextForm::Text;
  std::uint64_t bytes = 0;    // as it lies on disk
  std::int64_t modified = 0;  // ns; with `bytes`, whether it is still the same file
};

// A file or folder that cannot be used.
struct FileProblem {
  enum class Kind { Unreadable, UnknownEnding, EmptyFile, DirectoryLoop };
  Kind kind;
  std::string path;
  std::string what;  // one line, with what to do
};

struct InputFiles {
  std::vector<InputFile> files;
  std::vector<FileProblem> problems;
  std::int64_t hidden = 0;  // files and folders left out because of their name

  std::uint64_t bytes() const;
  // Changes when a file is another one, longer, shorter or newer.
  std::uint64_t fingerprint() const;
};

// `text_endings` as {"txt", "md"}, without the dot. A path of the user that does not exist is an
// IoError; whatever is wrong below it is a problem of the list.
InputFiles find_input_files(const std::vector<std::string>& paths,
                            const std::vector<std::string>& text_endings);

}  // namespace minke
