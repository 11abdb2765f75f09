#include "train/run_output.h"

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace minke {

void RunOutput::info(std::string_view message) const {
  if (speaks_) log_info(message);
}

void RunOutput::warning(std::string_view message) const {
  if (speaks_) log_warning(message);
}

void RunOutput::open_metrics(const std::filesystem::path& directory, std::int64_t last_step,
                             bool tensorboard) {
  if (speaks_)
    metrics_.emplace(directory / "metrics.jsonl", last_step,
                     tensorboard ? directory / "tensorboard" : std::filesystem::path());
}

void RunOutput::append(const nlohmann::ordered_json& line) {
  if (metrics_) metrics_->append(line);
}

void RunOutput::begin_progress(const ProgressOptions& options) {
  if (speaks_) progress_.emplace(options);
}

void RunOutput::update_progress(std::int64_t done, std::string_view suffix) {
  if (progress_) progress_->update(done, suffix);
}

void RunOutput::finish_progress() {
  if (progress_) progress_->finish();
}

}  // namespace minke
