// How often each routed expert of a layer was chosen, over the steps of a run of any length: a
// bounded number of columns, each the sum over equally many records.
#pragma once
#include <cstdint>
#include <vector>

namespace minke::page {

class LoadHistory {
 public:
  struct Column {
    std::int64_t first_step = 0, last_step = 0;
    std::vector<double> loads;  // by expert

    // Load of an expert over the mean of all experts; 0 without any load.
    double ratio(std::size_t expert) const;
    double worst_ratio() const;
  };

  // False, and nothing is added, when the number of experts is another than before, or none.
  bool add(std::int64_t step, const std::vector<double>& loads);

  std::size_t n_experts() const { return columns_.empty() ? 0 : columns_[0].loads.size(); }
  const std::vector<Column>& columns() const { return columns_; }
  // With neighbours joined until there are at most `most`.
  std::vector<Column> columns(std::size_t most) const;

 private:
  std::vector<Column> columns_;
  std::int64_t records_of_column_ = 1, records_of_last_ = 0;
};

}  // namespace minke::page
