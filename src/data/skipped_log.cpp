#include "data/skipped_log.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"

namespace minke {
namespace {

constexpr std::int64_t kPrinted = 20;
constexpr const char* kHowToGoOn = "; --on-error skip leaves it out and counts it";

}  // namespace

const char* name_of(FileProblem::Kind kind) {
  switch (kind) {
    case FileProblem::Kind::Unreadable:
      return "unreadable";
    case FileProblem::Kind::UnknownEnding:
      return "unknown_ending";
    case FileProblem::Kind::EmptyFile:
      return "empty_file";
    case FileProblem::Kind::DirectoryLoop:
      break;
  }
  return "directory_loop";
}

void SkippedLog::add(const FileProblem& problem) {
  if (settings_.on_error == "refuse")
    throw FormatError(fmt::format("{}: {}{}", problem.path, problem.what, kHowToGoOn));
  note(problem.path, 0, name_of(problem.kind), problem.what);
}

void SkippedLog::add(const InputFile& file, std::int64_t line, Outcome outcome,
                     const std::string& problem) {
  if (settings_.refuses(outcome))
    throw FormatError(
        fmt::format("{}: line {}: {}{}", file.path.string(), line, problem, kHowToGoOn));
  note(file.path.string(), line, name_of(outcome), problem);
}

void SkippedLog::note(const std::string& path, std::int64_t line, const char* reason,
                      const std::string& problem) {
  nlohmann::ordered_json entry = {{"path", path}};
  if (line > 0) entry["line"] = line;
  entry["reason"] = reason;
  entry["what"] = problem;
  log_.write(entry.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  if (++noted_ > kPrinted) return;
  log_warning(line > 0 ? fmt::format("skipped: {}: line {}: {}", path, line, problem)
                       : fmt::format("skipped: {}: {}", path, problem));
}

void SkippedLog::finish() const {
  if (noted_ > kPrinted)
    log_warning(fmt::format("{} more were skipped; skipped.jsonl names each", noted_ - kPrinted));
}

}  // namespace minke
