// What a training run left in OUT.run/metrics.jsonl (docs/training.md), read once, in bounded
// memory whatever its length.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "page/load_history.h"
#include "page/series.h"

namespace minke::page {

struct RunEvent {
  std::int64_t step = 0;
  double tokens = 0;  // of the newest step before it
  std::string kind, message;
};

struct RunRecord {
  std::filesystem::path directory;  // OUT.run
  std::string name;                 // what tells it from the other runs

  std::int64_t steps = 0;  // the last one
  double tokens = 0;       // after it
  double seconds = 0;      // computing, by the speed of each step
  // Over tokens, by dotted name: "loss.main", "held_out_sources.kjv", "load_ratios.3". Of FP8
  // statistics also the worst layer: "fp8_worst.x.0".
  std::map<std::string, Curve> curves;
  std::map<int, LoadHistory> loads;              // by layer
  std::vector<RunEvent> events;                  // the first ones
  std::map<std::string, std::int64_t> n_events;  // of each kind, all
  nlohmann::ordered_json recipe;                 // of the newest start that has one; null without

  std::int64_t n_bad_lines = 0;
  std::vector<std::string> bad_lines;  // the first ones: "line 12: not valid JSON"

  const Curve* curve(const std::string& name) const;
  std::optional<double> last(const std::string& name) const;         // as measured
  std::optional<double> last_smooth(const std::string& name) const;  // mean of the last part
  // The curves whose names begin with `prefix`, by the rest of their names; numbers in order.
  std::vector<std::pair<std::string, const Curve*>> below(const std::string& prefix) const;
};

// `run`: OUT.run, or OUT. IoError naming both when neither has a metrics.jsonl. A line that cannot
// be used is counted and named; nothing in the file can make this fail.
RunRecord read_run(const std::filesystem::path& run);

// Reads all and names them: their paths without what all have in common.
std::vector<RunRecord> read_runs(const std::vector<std::string>& runs);

}  // namespace minke::page
