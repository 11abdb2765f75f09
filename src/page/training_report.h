// The page of `minke report`: one or more training runs to look at and to compare (docs/report.md).
#pragma once
#include <string>
#include <vector>

#include "page/run_record.h"

namespace minke::page {

// A whole HTML document. Its size is bounded by the numbers of runs, layers, experts and sources,
// not by the length of the runs. What a run did not record is left out with a line that says why.
std::string training_report(const std::vector<RunRecord>& runs);

}  // namespace minke::page
