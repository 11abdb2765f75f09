#include "page/load_history.h"

#include <algorithm>
#include <numeric>

namespace minke::page {
namespace {

constexpr std::size_t kMost = 240;

void add_to(LoadHistory::Column& column, const LoadHistory::Column& later) {
  column.last_step = later.last_step;
  for (std::size_t i = 0; i < column.loads.size(); ++i) column.loads[i] += later.loads[i];
}

std::vector<LoadHistory::Column> joined(const std::vector<LoadHistory::Column>& columns) {
  std::vector<LoadHistory::Column> result;
  for (std::size_t i = 0; i < columns.size(); ++i)
    if (i % 2 == 0)
      result.push_back(columns[i]);
    else
      add_to(result.back(), columns[i]);
  return result;
}

}  // namespace

double LoadHistory::Column::ratio(std::size_t expert) const {
  const double sum = std::accumulate(loads.begin(), loads.end(), 0.);
  return sum > 0 ? loads[expert] * static_cast<double>(loads.size()) / sum : 0;
}

double LoadHistory::Column::worst_ratio() const {
  const auto worst = std::max_element(loads.begin(), loads.end());
  return ratio(static_cast<std::size_t>(worst - loads.begin()));
}

bool LoadHistory::add(std::int64_t step, const std::vector<double>& loads) {
  if (loads.empty() || (!columns_.empty() && loads.size() != n_experts())) return false;
  const Column one{step, step, loads};
  if (!columns_.empty() && records_of_last_ < records_of_column_) {
    add_to(columns_.back(), one);
    ++records_of_last_;
    return true;
  }
  if (columns_.size() == kMost) {  // an even number: every column is whole afterwards
    columns_ = joined(columns_);
    records_of_column_ *= 2;
  }
  columns_.push_back(one);
  records_of_last_ = 1;
  return true;
}

std::vector<LoadHistory::Column> LoadHistory::columns(std::size_t most) const {
  std::vector<Column> result = columns_;
  while (result.size() > std::max<std::size_t>(most, 1)) result = joined(result);
  return result;
}

}  // namespace minke::page
