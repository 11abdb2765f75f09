#include "page/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace minke::page {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t kShownBadLines = 5, kShownEvents = 200, kDeepest = 8;
constexpr double kLargest = 1e30;  // larger numbers are no measurement, and would overflow sums

fs::path without_slash(fs::path path) {
  while (!path.has_filename() && path.has_parent_path() && path != path.root_path())
    path = path.parent_path();
  return path;
}

fs::path run_directory_of(const fs::path& run) {
  const fs::path given = without_slash(run), beside = given.string() + ".run";
  for (const fs::path& directory : {given, beside})
    if (fs::is_regular_file(directory / "metrics.jsonl")) return directory;
  throw IoError(fmt::format(
      "there is no metrics.jsonl in {} or {}; expected the --out of a `minke train`, or "
      "its .run directory",
      given.string(), beside.string()));
}

// What is wrong with a line, thrown and caught within this file.
struct BadLine {
  std::string why;
};

class Reader {
 public:
  explicit Reader(RunRecord& run) : run_(run) {}

  void line(std::string_view text, std::int64_t number) {
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) return;
    try {
      entry(text);
    } catch (const BadLine& bad) {
      ++run_.n_bad_lines;
      if (run_.bad_lines.size() < kShownBadLines)
        run_.bad_lines.push_back(fmt::format("line {}: {}", number, bad.why));
    }
  }

 private:
  void entry(std::string_view text) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object()) throw BadLine{"not a JSON object"};
    const auto step = line.find("step");
    if (step == line.end() || !step->is_number_integer())
      throw BadLine{"\"step\" is missing or not a whole number"};
    if (line.contains("start"))
      start(line);
    else if (line.contains("event"))
      event(line, step->get<std::int64_t>());
    else
      measured(line, step->get<std::int64_t>());
  }

  void start(const Json& line) {
    if (const auto recipe = line.find("recipe"); recipe != line.end() && recipe->is_object())
      run_.recipe = *recipe;
  }

  void event(const Json& line, std::int64_t step) {
    const auto text = [&](const char* key) {
      const auto found = line.find(key);
      return found != line.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    RunEvent event{step, run_.tokens, text("event"), text("message")};
    if (event.kind.empty()) throw BadLine{"\"event\" is not a text"};
    ++run_.n_events[event.kind];
    if (run_.events.size() < kShownEvents) run_.events.push_back(std::move(event));
  }

  void measured(const Json& line, std::int64_t step) {
    const auto tokens = line.find("tokens");
    if (tokens == line.end() || !tokens->is_number() || !(tokens->get<double>() < kLargest))
      throw BadLine{"\"tokens\" is missing or not a number"};
    if (step <= run_.steps) throw BadLine{fmt::format("step {} after step {}", step, run_.steps)};
    if (tokens->get<double>() < run_.tokens) throw BadLine{"fewer tokens than the step before"};
    const double before = run_.tokens;
    run_.steps = step;
    run_.tokens = tokens->get<double>();
    add_time(line, run_.tokens - before);
    std::string bad;
    for (const auto& [key, value] : line.items())
      if (key == "loads")
        add_loads(value, bad);
      else if (key != "step" && key != "tokens")
        add_numbers(key, value, 0);
    if (const auto fp8 = line.find("fp8"); fp8 != line.end() && fp8->is_object())
      add_worst_layer(*fp8);
    if (!bad.empty()) throw BadLine{bad};
  }

  void add_time(const Json& line, double tokens) {
    const auto speed = line.find("tokens_per_s");
    if (speed != line.end() && speed->is_number() && speed->get<double>() > 0)
      run_.seconds += tokens / speed->get<double>();
  }

  void add(const std::string& name, double value) {
    if (std::abs(value) < kLargest) run_.curves[name].add({run_.tokens, value});
  }

  void add_numbers(const std::string& name, const Json& value, std::size_t depth) {
    if (depth > kDeepest) return;
    if (value.is_number()) {
      add(name, value.get<double>());
    } else if (value.is_object()) {
      for (const auto& [key, inner] : value.items())
        add_numbers(name + "." + key, inner, depth + 1);
    } else if (value.is_array()) {
      for (std::size_t i = 0; i < value.size(); ++i)
        add_numbers(fmt::format("{}.{}", name, i), value[i], depth + 1);
    }
  }

  void add_loads(const Json& loads, std::string& bad) {
    if (!loads.is_object()) {
      bad = "\"loads\" is not an object";
      return;
    }
    for (const auto& [key, of_experts] : loads.items()) {
      int layer = -1;
      std::from_chars(key.data(), key.data() + key.size(), layer);
      std::vector<double> counts;
      if (of_experts.is_array())
        for (const Json& count : of_experts)
          counts.push_back(count.is_number() ? std::max(0., count.get<double>()) : 0);
      if (layer < 0 || counts.empty() || !run_.loads[layer].add(run_.steps, counts))
        bad =
            fmt::format("loads of layer \"{}\": not as many experts as before", readable_line(key));
    }
  }

  // "fp8": {"LAYER": {"x": [clipped, underflow], ...}}
  void add_worst_layer(const Json& fp8) {
    std::map<std::string, double> worst;
    for (const auto& layer : fp8)
      if (layer.is_object())
        for (const auto& [tensor, shares] : layer.items())
          for (std::size_t i = 0; shares.is_array() && i < shares.size(); ++i)
            if (shares[i].is_number()) {
              double& most = worst[fmt::format("fp8_worst.{}.{}", tensor, i)];
              most = std::max(most, shares[i].get<double>());
            }
    for (const auto& [name, value] : worst) add(name, value);
  }

  RunRecord& run_;
};

// Whole numbers by value, before everything else.
bool name_before(const std::string& a, const std::string& b) {
  const auto number = [](const std::string& text) {
    int value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() ? value : INT32_MAX;
  };
  return std::pair(number(a), a) < std::pair(number(b), b);
}

// The parts of a path, the last one without ".run".
std::vector<std::string> parts_of(const fs::path& directory) {
  std::vector<std::string> parts;
  for (const fs::path& part : fs::absolute(directory).lexically_normal())
    parts.push_back(part.string());
  if (parts.back().size() > 4 && parts.back().ends_with(".run"))
    parts.back().resize(parts.back().size() - 4);
  return parts;
}

}  // namespace

const Curve* RunRecord::curve(const std::string& name) const {
  const auto found = curves.find(name);
  return found == curves.end() || found->second.raw.empty() ? nullptr : &found->second;
}

std::optional<double> RunRecord::last(const std::string& name) const {
  const Curve* found = curve(name);
  return found ? std::optional(found->raw.last().y) : std::nullopt;
}

std::optional<double> RunRecord::last_smooth(const std::string& name) const {
  const Curve* found = curve(name);
  return found ? std::optional(found->smooth.last().y) : std::nullopt;
}

std::vector<std::pair<std::string, const Curve*>> RunRecord::below(
    const std::string& prefix) const {
  std::vector<std::pair<std::string, const Curve*>> found;
  for (auto at = curves.lower_bound(prefix); at != curves.end() && at->first.starts_with(prefix);
       ++at)
    found.emplace_back(at->first.substr(prefix.size()), &at->second);
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return name_before(a.first, b.first); });
  return found;
}

RunRecord read_run(const fs::path& path) {
  RunRecord run;
  run.directory = run_directory_of(path);
  run.name = parts_of(run.directory).back();
  const MappedFile file = MappedFile::open(run.directory / "metrics.jsonl");
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  Reader reader(run);
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    reader.line(rest.substr(0, end), number);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  file.check_intact();
  return run;
}

std::vector<RunRecord> read_runs(const std::vector<std::string>& paths) {
  std::vector<RunRecord> runs;
  std::vector<std::vector<std::string>> parts;
  for (const std::string& path : paths) {
    runs.push_back(read_run(path));
    parts.push_back(parts_of(runs.back().directory));
  }
  std::size_t common = 0;  // leading parts that all share; the last part stays
  const auto shared = [&](std::size_t i) {
    return std::all_of(parts.begin(), parts.end(),
                       [&](const auto& p) { return i + 1 < p.size() && p[i] == parts[0][i]; });
  };
  while (!parts.empty() && shared(common)) ++common;
  std::set<std::string> names;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    std::string name;
    for (std::size_t i = common; i < parts[r].size(); ++i)
      name += (name.empty() ? "" : "/") + parts[r][i];
    runs[r].name = names.insert(name).second ? name : fmt::format("{} ({})", name, r + 1);
    names.insert(runs[r].name);
  }
  return runs;
}

}  // namespace minke::page
