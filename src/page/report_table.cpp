#include "page/report_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "page/plot.h"

namespace minke::page {
namespace {

using Json = nlohmann::ordered_json;
using Value = std::optional<double>;

struct Column {
  const char* key;
  const char* label;
  Value (*value)(const RunRecord&);
  std::string (*shown)(double);
};

std::string four_digits(double value) {
  return fmt::format("{:.4f}", value);
}
std::string times(double value) {
  return fmt::format("{:.2f}x", value);
}
std::string percent(double share) {
  return fmt::format("{:.2f} %", 100 * share);
}
std::string whole(double value) {
  return fmt::format("{:.0f}", value);
}

Value lowest_held_out(const RunRecord& run) {
  const Curve* curve = run.curve("held_out");
  if (!curve) return std::nullopt;
  double low = curve->raw.last().y;
  for (const Point& p : curve->raw.points()) low = std::min(low, p.y);
  return low;
}

const Column kColumns[] = {
    {"steps", "steps", [](const RunRecord& r) { return Value(static_cast<double>(r.steps)); },
     whole},
    {"tokens", "tokens", [](const RunRecord& r) { return Value(r.tokens); }, short_count},
    {"loss", "loss", [](const RunRecord& r) { return r.last_smooth("loss.main"); }, four_digits},
    {"held_out", "held-out", [](const RunRecord& r) { return r.last("held_out"); }, four_digits},
    {"held_out_lowest", "lowest", lowest_held_out, four_digits},
    {"held_out_ema", "held-out, EMA", [](const RunRecord& r) { return r.last("held_out_ema"); },
     four_digits},
    {"held_out_bits_per_byte", "bits/byte",
     [](const RunRecord& r) { return r.last("held_out_bits_per_byte"); }, four_digits},
    {"mtp_acceptance", "MTP accepted", [](const RunRecord& r) { return r.last("mtp_acceptance"); },
     percent},
    {"worst_load_ratio", "worst load",
     [](const RunRecord& r) { return r.last_smooth("worst_load_ratio"); }, times},
    {"grad_norm", "gradient norm", [](const RunRecord& r) { return r.last_smooth("grad_norm"); },
     short_number},
    {"tokens_per_s", "tokens/s",
     [](const RunRecord& r) { return r.seconds > 0 ? Value(r.tokens / r.seconds) : Value(); },
     whole},
    {"seconds", "seconds",
     [](const RunRecord& r) { return r.seconds > 0 ? Value(r.seconds) : Value(); }, whole},
};

Json or_null(Value value) {
  return value ? Json(*value) : Json(nullptr);
}

// "a.b" -> value.
void flatten(const Json& json, const std::string& prefix, std::map<std::string, std::string>& out) {
  for (const auto& [key, value] : json.items())
    if (value.is_object() && !value.empty())
      flatten(value, prefix + key + ".", out);
    else
      out[prefix + key] = value.is_string() ? value.get<std::string>() : value.dump();
}

std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::vector<std::string> names_of(const std::vector<RunRecord>& runs, std::string first) {
  std::vector<std::string> names{std::move(first)};
  for (const RunRecord& run : runs) names.push_back(run.name);
  return names;
}

}  // namespace

Table final_table(const std::vector<RunRecord>& runs) {
  Table table{{"run"}, {}};
  for (const RunRecord& run : runs) table.rows.push_back({run.name});
  for (const Column& column : kColumns) {
    if (std::none_of(runs.begin(), runs.end(),
                     [&](const RunRecord& run) { return column.value(run).has_value(); }))
      continue;
    table.columns.emplace_back(column.label);
    for (std::size_t r = 0; r < runs.size(); ++r) {
      const Value value = column.value(runs[r]);
      table.rows[r].push_back(value ? column.shown(*value) : "");
    }
  }
  return table;
}

Json final_json(const std::vector<RunRecord>& runs) {
  Json list = Json::array();
  for (const RunRecord& run : runs) {
    Json entry{{"run", run.name}, {"directory", run.directory.string()}};
    for (const Column& column : kColumns) entry[column.key] = or_null(column.value(run));
    entry["steps"] = run.steps;
    entry["held_out_sources"] = entry["load_ratios"] = Json::object();
    for (const auto& [source, curve] : run.below("held_out_sources."))
      entry["held_out_sources"][source] = curve->raw.last().y;
    for (const auto& [layer, curve] : run.below("load_ratios."))
      entry["load_ratios"][layer] = curve->smooth.last().y;
    entry["events"] = run.n_events;
    entry["bad_lines"] = run.n_bad_lines;
    list.push_back(std::move(entry));
  }
  return {{"runs", std::move(list)}};
}

Table recipe_differences(const std::vector<RunRecord>& runs) {
  Table table{names_of(runs, "setting"), {}};
  std::vector<std::map<std::string, std::string>> settings(runs.size());
  std::map<std::string, std::string> all;
  std::size_t with_recipe = 0;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!runs[r].recipe.is_object()) continue;
    ++with_recipe;
    flatten(runs[r].recipe, "", settings[r]);
    all.insert(settings[r].begin(), settings[r].end());
  }
  if (with_recipe < 2) return table;
  for (const auto& [name, any] : all) {
    if (name == "out") continue;
    std::vector<std::string> row{name};
    bool differs = false;
    for (std::size_t r = 0; r < runs.size(); ++r) {
      const auto found = settings[r].find(name);
      row.push_back(found == settings[r].end() ? "" : found->second);
      differs |= runs[r].recipe.is_object() && row.back() != any;
    }
    if (differs) table.rows.push_back(std::move(row));
  }
  return table;
}

Table layer_table(const std::vector<RunRecord>& runs, const std::string& prefix,
                  const std::string& suffix, bool as_percent) {
  Table table{names_of(runs, "layer"), {}};
  std::map<int, std::vector<std::string>> rows;
  for (std::size_t r = 0; r < runs.size(); ++r)
    for (const auto& [name, curve] : runs[r].below(prefix)) {
      if (!name.ends_with(suffix)) continue;
      const std::string layer = name.substr(0, name.size() - suffix.size());
      if (layer.empty() || layer.find_first_not_of("0123456789") != std::string::npos ||
          layer.size() > 6)
        continue;
      std::vector<std::string>& row = rows[std::stoi(layer)];
      row.resize(runs.size() + 1);
      row[0] = layer;
      const double value = curve->smooth.last().y;
      row[r + 1] = as_percent ? fmt::format("{:.4g} %", 100 * value) : times(value);
    }
  for (auto& [layer, row] : rows) table.rows.push_back(std::move(row));
  return table;
}

std::string table_text(const Table& table) {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    widths.push_back(width_of(table.columns[i]));
    for (const auto& row : table.rows) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  const auto add = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string room(widths[i] - width_of(cells[i]), ' ');
      text += i == 0 ? cells[i] + room : "  " + room + cells[i];
    }
    text += '\n';
  };
  add(table.columns);
  for (const auto& row : table.rows) add(row);
  return text;
}

}  // namespace minke::page
