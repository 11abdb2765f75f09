#include "page/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "page/html.h"

namespace minke::page {
namespace {

// Upper ends of all steps but the last. Ratios, so symmetric around 1 by factors.
constexpr double kLimits[] = {0.25, 0.5, 0.8, 1.25, 2, 4};
constexpr std::size_t kLevels = std::size(kLimits) + 1;

constexpr double kShortest = 64, kTallest = 320, kRow = 7;

}  // namespace

std::vector<std::string> heat_levels() {
  std::vector<std::string> names{fmt::format("below {}", kLimits[0])};
  for (std::size_t i = 1; i < std::size(kLimits); ++i)
    names.push_back(fmt::format("{} to {}", kLimits[i - 1], kLimits[i]));
  names.push_back(fmt::format("above {}", kLimits[std::size(kLimits) - 1]));
  return names;
}

std::size_t heat_level(double ratio) {
  return static_cast<std::size_t>(std::upper_bound(std::begin(kLimits), std::end(kLimits), ratio) -
                                  std::begin(kLimits));
}

std::string heat_map_svg(const LoadHistory& loads, std::size_t most_columns) {
  const std::vector<LoadHistory::Column> columns = loads.columns(most_columns);
  const std::size_t n_experts = loads.n_experts();
  std::vector<std::string> paths(kLevels);
  for (std::size_t expert = 0; expert < n_experts; ++expert)
    for (std::size_t begin = 0; begin < columns.size();) {
      const std::size_t level = heat_level(columns[begin].ratio(expert));
      std::size_t end = begin + 1;
      while (end < columns.size() && heat_level(columns[end].ratio(expert)) == level) ++end;
      fmt::format_to(std::back_inserter(paths[level]), "M{},{}.5h{}", begin, expert, end - begin);
      begin = end;
    }
  std::string steps;  // first step of every column, and the last step of all
  for (const LoadHistory::Column& c : columns) steps += fmt::format("{},", c.first_step);
  if (!columns.empty()) steps += std::to_string(columns.back().last_step);
  const double height = std::clamp(kRow * static_cast<double>(n_experts), kShortest, kTallest);
  std::string svg = fmt::format(
      "<svg class=\"heat\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" "
      "style=\"height:{:.0f}px\" data-steps=\"{}\" role=\"img\" aria-label=\"load by expert\">\n",
      std::max<std::size_t>(columns.size(), 1), std::max<std::size_t>(n_experts, 1), height, steps);
  for (std::size_t level = 0; level < kLevels; ++level)
    if (!paths[level].empty())
      svg += fmt::format("<path class=\"h{}\" data-level=\"{}\" d=\"{}\"/>\n", level,
                         escape(heat_levels()[level]), paths[level]);
  return svg + "</svg>\n";
}

std::string heat_legend() {
  std::string markup = "<div class=\"legend\"><span>load over mean:</span>";
  const std::vector<std::string> names = heat_levels();
  for (std::size_t i = 0; i < names.size(); ++i)
    markup += fmt::format("<span><i class=\"b{}\"></i>{}</span>", i, escape(names[i]));
  return markup + "</div>\n";
}

}  // namespace minke::page
