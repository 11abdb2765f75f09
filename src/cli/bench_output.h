// How minke bench shows what it measured.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "bench/result.h"

namespace minke {

// {"machine": {...}, "results": [...]}
nlohmann::ordered_json results_json(const std::vector<bench::Result>& results);
void print_results(const std::vector<bench::Result>& results);

}  // namespace minke
