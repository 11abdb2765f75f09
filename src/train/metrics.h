// metrics.jsonl: what a run measured, one JSON object a line, written as it happens; and the same
// as event files for TensorBoard.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "base/append_file.h"
#include "train/event_file.h"

namespace minke {

class MetricsLog {
 public:
  // Lines that are there are kept when their "step" is at most `last_step`: a resumed run repeats
  // the steps after its checkpoint, and each step stands in the file once. A line that a killed
  // process left half written is dropped. Event files go into `events_directory`, if one is given.
  MetricsLog(std::filesystem::path path, std::int64_t last_step,
             const std::filesystem::path& events_directory = {});

  // Every number of a line is a scalar of the event file under its dotted name ("loss.mtp_k.0"),
  // loads are histograms, a "recipe" and the message of an event are text. IoError naming the file
  // when it cannot be written.
  void append(const nlohmann::ordered_json& line);

 private:
  AppendFile file_;
  std::optional<EventFile> events_;
};

// What `append` writes of one line into the event file.
EventSummary event_summary(const nlohmann::ordered_json& line);

}  // namespace minke
