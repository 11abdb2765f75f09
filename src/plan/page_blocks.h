// Blocks that the pages and tables of several plans share.
#pragma once
#include <vector>

#include "page/html.h"
#include "plan/cost.h"
#include "plan/memory.h"
#include "plan/step_time.h"

namespace minke {

// Memory of every pipeline rank by part, GB.
page::Bars memory_bars(const std::vector<RankMemory>& ranks);

// A row for each stage: its rank, layers, the seconds of its operations and what bounds them.
page::Table stage_table(const PlanModel& model, const StepTime& step);

// A row for each pipeline rank: seconds in each kind of operation.
page::Table rank_table(const StepTime& step);

page::Table cost_table(const std::vector<CostRow>& rows);

}  // namespace minke
