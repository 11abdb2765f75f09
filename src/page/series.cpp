#include "page/series.h"

#include <algorithm>
#include <cmath>

namespace minke::page {
namespace {

constexpr std::size_t kMost = 4096;  // points of a Series
constexpr int kLinearBuckets = 512, kLogBuckets = 384;

// Marks what `thin` keeps.
void mark(const std::vector<Point>& points, Scale scale, int n_buckets, std::vector<bool>& kept) {
  const double first = points.front().x, last = points.back().x;
  const auto bucket_of = [&](const Point& p) {
    const double at = position_on(scale, p.x, first, last);
    return std::min(static_cast<int>(at * n_buckets), n_buckets - 1);
  };
  for (std::size_t begin = 0; begin < points.size();) {
    const int bucket = bucket_of(points[begin]);
    std::size_t low = begin, high = begin, end = begin;
    for (; end < points.size() && bucket_of(points[end]) == bucket; ++end) {
      if (points[end].y < points[low].y) low = end;
      if (points[end].y > points[high].y) high = end;
    }
    kept[low] = kept[high] = true;
    begin = end;
  }
  kept.front() = kept.back() = true;
}

std::vector<Point> kept_of(const std::vector<Point>& points, const std::vector<bool>& kept) {
  std::vector<Point> result;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (kept[i]) result.push_back(points[i]);
  return result;
}

}  // namespace

double position_on(Scale scale, double x, double first, double last) {
  if (scale == Scale::Log) {
    // A logarithmic axis needs a beginning above 0; of what begins at 0, a millionth is shown.
    const double begin = first > 0 ? first : last * 1e-6;
    if (!(x > begin) || !(last > begin)) return 0;
    return std::min(1., std::log(x / begin) / std::log(last / begin));
  }
  return last > first ? std::clamp((x - first) / (last - first), 0., 1.) : 0;
}

std::vector<Point> thin(const std::vector<Point>& points, Scale scale, int n_buckets) {
  if (points.size() <= 2) return points;
  std::vector<bool> kept(points.size());
  mark(points, scale, n_buckets, kept);
  return kept_of(points, kept);
}

void Series::add(Point point) {
  ++count_;
  points_.push_back(point);
  if (points_.size() < kMost) return;
  std::vector<bool> kept(points_.size());
  mark(points_, Scale::Linear, kLinearBuckets, kept);
  mark(points_, Scale::Log, kLogBuckets, kept);
  points_ = kept_of(points_, kept);
}

double Smoother::add(double value) {
  ++count_;
  const auto n = static_cast<double>(count_);
  const double memory = std::min((n + 2) / 3, std::max(10., n / 50));
  return mean_ += (value - mean_) / memory;
}

}  // namespace minke::page
