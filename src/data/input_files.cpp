#include "data/input_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Directory = std::pair<dev_t, ino_t>;

std::string message_of(int error_number) {
  return std::strerror(error_number);
}

class Search {
 public:
  explicit Search(const std::vector<std::string>& text_endings) : text_endings_(text_endings) {}

  void add_path(fs::path path) {
    if (!path.has_filename() && path.has_relative_path()) path = path.parent_path();  // "set/"
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) throw_io_error("cannot open " + path.string(), errno);
    if (S_ISDIR(status.st_mode))
      add_directory(path, {status.st_dev, status.st_ino});
    else
      add_file(path, status, path.parent_path(), /*in_folder=*/false);
  }

  InputFiles take() { return std::move(found_); }

 private:
  void problem(FileProblem::Kind kind, const fs::path& path, std::string what) {
    found_.problems.push_back({kind, path.string(), std::move(what)});
  }

  // `open_` are the folders from the user's path down to here: coming to one again is a loop.
  void add_directory(const fs::path& path, Directory directory) {
    if (std::find(open_.begin(), open_.end(), directory) != open_.end()) {
      problem(FileProblem::Kind::DirectoryLoop, path,
              "the link leads to a folder that it lies in; remove it");
      return;
    }
    std::vector<fs::path> entries;
    std::error_code error;
    for (auto entry = fs::directory_iterator(path, error);
         !error && entry != fs::directory_iterator(); entry.increment(error))
      entries.push_back(entry->path());
    if (error) {
      problem(FileProblem::Kind::Unreadable, path, "cannot read the folder: " + error.message());
      return;
    }
    std::sort(entries.begin(), entries.end());
    open_.push_back(directory);
    for (const fs::path& entry : entries) add_entry(entry, path);
    open_.pop_back();
  }

  void add_entry(const fs::path& path, const fs::path& folder) {
    if (path.filename().string().starts_with(".")) {
      ++found_.hidden;
      return;
    }
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) {
      // ELOOP: links that lead to each other and to nothing else.
      problem(errno == ELOOP ? FileProblem::Kind::DirectoryLoop : FileProblem::Kind::Unreadable,
              path, "cannot open: " + message_of(errno));
    } else if (S_ISDIR(status.st_mode)) {
      add_directory(path, {status.st_dev, status.st_ino});
    } else {
      add_file(path, status, folder, /*in_folder=*/true);
    }
  }

  void add_file(const fs::path& path, const struct stat& status, const fs::path& folder,
                bool in_folder) {
    fs::path name = path.filename();
    if (compression_of(name) != Compression::None) name = name.stem();
    const std::string ending = name.extension().string();
    const bool json = ending == ".jsonl";
    const bool text = ending.size() > 1 && std::find(text_endings_.begin(), text_endings_.end(),
                                                     ending.substr(1)) != text_endings_.end();
    if (!json && !text) {
      problem(FileProblem::Kind::UnknownEnding, path,
              fmt::format("the ending is neither .jsonl nor one of .{}; --text-endings names those "
                          "that are text",
                          fmt::join(text_endings_, " .")));
    } else if (!S_ISREG(status.st_mode)) {
      problem(FileProblem::Kind::Unreadable, path, "is no regular file");
    } else if (status.st_size == 0) {
      problem(FileProblem::Kind::EmptyFile, path, "the file is empty");
    } else if (const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC); fd < 0) {
      problem(FileProblem::Kind::Unreadable, path, "cannot open: " + message_of(errno));
    } else {
      ::close(fd);
      const bool by_folder = text && in_folder;
      found_.files.push_back(
          {.path = path,
           .default_source = by_folder ? fs::absolute(folder).lexically_normal().filename().string()
                                       : name.stem().string(),
           .form = json ? TextForm::JsonLines : TextForm::Text,
           .bytes = static_cast<std::uint64_t>(status.st_size),
           .modified = static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 +
                       status.st_mtim.tv_nsec});
    }
  }

  const std::vector<std::string>& text_endings_;
  std::vector<Directory> open_;
  InputFiles found_;
};

}  // namespace

std::uint64_t InputFiles::bytes() const {
  std::uint64_t sum = 0;
  for (const InputFile& file : files) sum += file.bytes;
  return sum;
}

std::uint64_t InputFiles::fingerprint() const {
  Hash64 hash;
  for (const InputFile& file : files)
    hash.add(
        as_byte_span(fmt::format("{} {} {}\n", file.path.string(), file.bytes, file.modified)));
  return hash.value();
}

InputFiles find_input_files(const std::vector<std::string>& paths,
                            const std::vector<std::string>& text_endings) {
  Search search(text_endings);
  for (const std::string& path : paths) search.add_path(path);
  return search.take();
}

}  // namespace minke
