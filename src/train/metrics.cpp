#include "train/metrics.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

bool is_kept(const std::string& line, std::int64_t last_step) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  return json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
         json["step"].get<std::int64_t>() <= last_step;
}

// Writes the lines that are kept, and says where they are.
const std::filesystem::path& keep_lines(const std::filesystem::path& path, std::int64_t last_step) {
  std::string kept;
  if (std::filesystem::exists(path)) {
    std::istringstream lines(read_file(path));
    for (std::string line; std::getline(lines, line);)
      if (is_kept(line, last_step)) kept += line + "\n";
  }
  write_file_atomic(path, kept);
  return path;
}

void add_scalars(EventSummary& summary, const std::string& name, const Json& value) {
  if (value.is_number()) {
    summary.scalar(name, value.get<double>());
  } else if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) add_scalars(summary, name + "." + key, inner);
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i)
      add_scalars(summary, fmt::format("{}.{}", name, i), value[i]);
  }
}

void add_loads(EventSummary& summary, const Json& loads) {
  for (const auto& [layer, of_experts] : loads.items())
    summary.counts("loads." + layer, of_experts.get<std::vector<double>>());
}

}  // namespace

EventSummary event_summary(const Json& line) {
  EventSummary summary;
  if (const auto recipe = line.find("recipe"); recipe != line.end())
    summary.text("recipe", "```json\n" + recipe->dump(2) + "\n```");
  if (line.contains("event")) {
    summary.text(fmt::format("event.{}", line["event"].get<std::string>()),
                 line.value("message", line.dump()));
    return summary;
  }
  if (line.contains("start")) return summary;
  for (const auto& [key, value] : line.items()) {
    if (key == "loads")
      add_loads(summary, value);
    else if (key != "step")
      add_scalars(summary, key, value);
  }
  return summary;
}

MetricsLog::MetricsLog(std::filesystem::path path, std::int64_t last_step,
                       const std::filesystem::path& events_directory)
    : file_(keep_lines(path, last_step), AppendFile::Open::Existing) {
  if (!events_directory.empty()) events_.emplace(events_directory, last_step + 1);
}

void MetricsLog::append(const Json& line) {
  file_.append(line.dump() + "\n");
  if (!events_) return;
  const EventSummary summary = event_summary(line);
  if (!summary.empty()) events_->add(line.value("step", std::int64_t{0}), summary);
}

}  // namespace minke
