// What was wrong with the input: each fault is named in skipped.jsonl, the first ones also on
// stderr, or the first one ends the run, as configured.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "data/document_check.h"
#include "data/input_files.h"
#include "data/resumable_file.h"

namespace minke {

class SkippedLog {
 public:
  // Goes on behind the first `length` bytes of `file`.
  SkippedLog(const std::filesystem::path& file, std::uint64_t length, const DataSettings& settings)
      : log_(file, length), settings_(settings) {}

  // FormatError or IoError when the settings refuse it.
  void add(const FileProblem& problem);
  void add(const InputFile& file, std::int64_t line, Outcome outcome, const std::string& problem);
  std::uint64_t sync() { return log_.sync(); }
  // Says how many were not printed.
  void finish() const;

 private:
  void note(const std::string& path, std::int64_t line, const char* reason,
            const std::string& problem);

  ResumableFile log_;
  const DataSettings& settings_;
  std::int64_t noted_ = 0;
};

const char* name_of(FileProblem::Kind kind);  // "unknown_ending"

}  // namespace minke
