// The last numbers of training runs, for people (a table) and for programs (JSON): listed once.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "page/html.h"
#include "page/run_record.h"

namespace minke::page {

// A row for each run; columns that no run has a value for are left out.
Table final_table(const std::vector<RunRecord>& runs);

// {"runs": [{"run", "directory", the columns of the table by their keys, null where a run has no
// value, "held_out_sources", "load_ratios" (by layer), "events" (counts by kind), "bad_lines"}]}
nlohmann::ordered_json final_json(const std::vector<RunRecord>& runs);

// Settings that differ between the runs: a row for each, a column for each run. Empty rows when all
// are equal or fewer than two runs have a recipe.
Table recipe_differences(const std::vector<RunRecord>& runs);

// Layers down, runs across: the last values of curves "prefix LAYER suffix", smoothed.
Table layer_table(const std::vector<RunRecord>& runs, const std::string& prefix,
                  const std::string& suffix, bool percent);

// With aligned columns, for a terminal.
std::string table_text(const Table& table);

}  // namespace minke::page
