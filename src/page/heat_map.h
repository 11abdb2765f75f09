// Expert loads of one layer over the steps of a run: a row for each expert, a column for each part
// of the run, the colour says load over mean. Drawn as one path a colour, so that what is even is
// small.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "page/load_history.h"

namespace minke::page {

// Steps of the colour scale, lowest load first: "below 0.25", "0.25 to 0.5", ...
std::vector<std::string> heat_levels();
// Number of the step that a load over the mean falls into.
std::size_t heat_level(double ratio);

// At most `most_columns` columns.
std::string heat_map_svg(const LoadHistory& loads, std::size_t most_columns);

// The colours' meaning, as markup.
std::string heat_legend();

}  // namespace minke::page
