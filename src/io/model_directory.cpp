#include "io/model_directory.h"

#include <fmt/format.h>

#include "base/error.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

std::string with_unit(std::uint64_t bytes) {
  double value = static_cast<double>(bytes);
  const char* unit = "bytes";
  for (const char* next : {"KB", "MB", "GB", "TB"}) {
    if (value < 1000) break;
    value /= 1000, unit = next;
  }
  return fmt::format("{:.4g} {}", value, unit);
}

bool is_copied(const fs::path& path) {
  const std::string name = path.filename().string(), type = path.extension().string();
  return name.starts_with("tokenizer") || name.starts_with("LICENSE") ||
         name.starts_with("chat_template") || name == "special_tokens_map.json" ||
         name == "added_tokens.json" || name == "generation_config.json" || name == "vocab.json" ||
         type == ".jinja" || type == ".txt" || type == ".md" || type == ".py" || type == ".model";
}

}  // namespace

void check_output(const fs::path& model, const fs::path& out, bool overwrite) {
  std::error_code error;
  const fs::path from = fs::weakly_canonical(model, error);
  const fs::path to = fs::weakly_canonical(fs::absolute(out), error);
  const fs::path inside = from.lexically_relative(to.has_filename() ? to : to.parent_path());
  if (inside == "." || (!inside.empty() && *inside.begin() != ".."))
    throw UsageError(fmt::format("--out {} would replace the input {}; choose another directory",
                                 out.string(), model.string()));
  if (!overwrite && fs::exists(out, error) && !fs::is_empty(out, error))
    throw UsageError(
        fmt::format("--out {} exists; choose another directory, or add --overwrite", out.string()));
}

void check_space(const fs::path& out, const std::vector<TensorDecl>& tensors) {
  std::uint64_t needed = 0;
  for (const TensorDecl& t : tensors) needed += t.bytes();
  fs::path at = fs::absolute(out);
  std::error_code error;
  while (!fs::exists(at, error) && at.has_parent_path() && at != at.parent_path())
    at = at.parent_path();
  const fs::space_info space = fs::space(at, error);
  if (!error && space.available < needed)
    throw IoError(fmt::format("{} needs {}, but only {} are free on its disk", out.string(),
                              with_unit(needed), with_unit(space.available)));
}

std::int64_t copy_other_files(const fs::path& model, StoreOptions options, AtomicDirectory& out) {
  std::int64_t n = 0;
  for (const auto& entry : fs::directory_iterator(model)) {
    if (!entry.is_regular_file() || !is_copied(entry.path())) continue;
    const std::string name = entry.path().filename().string();
    const MappedFile from = MappedFile::open(file_in_directory(model, name, options));
    FileWriter to(out.path() / name);
    to.write(from.bytes());
    from.check_intact();
    out.record(name, to.finish());
    ++n;
  }
  return n;
}

}  // namespace minke
