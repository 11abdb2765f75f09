// Curves of any length in bounded memory. A point that stands out stays: thinning cuts the x axis
// into buckets and keeps the lowest and the highest point of each.
#pragma once
#include <cstdint>
#include <vector>

namespace minke::page {

struct Point {
  double x = 0, y = 0;
  bool operator==(const Point&) const = default;
};

enum class Scale : std::uint8_t { Linear, Log };

// Where x lies on the scale that [first, last] spans, 0 to 1. On a logarithmic one, x that are not
// above 0 lie at 0.
double position_on(Scale scale, double x, double first, double last);

// At most 2 n_buckets + 2 points of `points`, whose x ascend: of each bucket of equal width on the
// scale the lowest and the highest, and the first and the last of all. Twice gives the same as
// once.
std::vector<Point> thin(const std::vector<Point>& points, Scale scale, int n_buckets);

// Points as they come, x ascending. When there are too many, those that neither a linear nor a
// logarithmic plot needs are left out.
class Series {
 public:
  void add(Point point);

  const std::vector<Point>& points() const { return points_; }
  std::int64_t count() const { return count_; }  // added in all
  bool empty() const { return points_.empty(); }
  Point last() const { return points_.back(); }

 private:
  std::vector<Point> points_;
  std::int64_t count_ = 0;
};

// Exponential mean with a memory that grows with the curve: the last fiftieth of the values so far,
// at least ten but never more than a third of them. One rule then fits runs of a hundred steps and
// of a million, and any x scale.
class Smoother {
 public:
  double add(double value);

 private:
  double mean_ = 0;
  std::int64_t count_ = 0;
};

struct Curve {
  Series raw, smooth;

  void add(Point point) {
    raw.add(point);
    smooth.add({point.x, smoother_.add(point.y)});
  }

 private:
  Smoother smoother_;
};

}  // namespace minke::page
