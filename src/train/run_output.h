// What a run shows and writes down as it goes: messages, progress, metrics.jsonl. Of several ranks
// the first alone does; the others' outputs do nothing.
#pragma once
#include <string_view>

#include "base/progress.h"
#include "train/metrics.h"

namespace minke {

class RunOutput {
 public:
  explicit RunOutput(bool speaks) : speaks_(speaks) {}

  void info(std::string_view message) const;
  void warning(std::string_view message) const;

  // Opens MetricsLog(directory / "metrics.jsonl", ...), events in directory/tensorboard.
  void open_metrics(const std::filesystem::path& directory, std::int64_t last_step,
                    bool tensorboard);
  void append(const nlohmann::ordered_json& line);  // after open_metrics

  void begin_progress(const ProgressOptions& options);
  void update_progress(std::int64_t done, std::string_view suffix);
  void finish_progress();

 private:
  bool speaks_;
  std::optional<MetricsLog> metrics_;
  std::optional<Progress> progress_;
};

}  // namespace minke
