// Counters in the Prometheus text format 0.0.4. Any thread may record and read.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "infer/batch_engine.h"
#include "serve/request_record.h"

namespace minke {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  // upper bounds of the buckets, rising
  void add(double value);
  std::string text(const std::string& name, const std::string& help) const;

 private:
  std::vector<double> bounds_;
  std::vector<std::uint64_t> counts_;  // one more for +Inf
  std::uint64_t count_ = 0;
  double sum_ = 0;
};

class Metrics {
 public:
  // `info`: labels of minke_build_info, as {"isa", "amx"}.
  explicit Metrics(std::vector<std::pair<std::string, std::string>> info);
  void record(const RequestRecord& request);
  std::string text(const BatchStatistics& engine) const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<std::string, std::string>> info_;
  std::map<std::pair<std::string, int>, std::uint64_t> requests_;  // by route and status
  Histogram first_token_, per_token_, duration_;
};

}  // namespace minke
