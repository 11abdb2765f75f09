// metrics.jsonl: what a run measured, one JSON object a line, written as it happens.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace minke {

class MetricsLog {
 public:
  // Lines that are there are kept when their "step" is at most `last_step`: a resumed run repeats
  // the steps after its checkpoint, and each step stands in the file once. A line that a killed
  // process left half written is dropped.
  MetricsLog(std::filesystem::path path, std::int64_t last_step);
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  ~MetricsLog();

  // IoError naming the file when it cannot be written.
  void append(const nlohmann::ordered_json& line);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace minke
