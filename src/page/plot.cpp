#include "page/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "page/html.h"

namespace minke::page {
namespace {

constexpr double kLeft = 58, kRight = 14, kTop = 34, kBottom = 34;
constexpr int kBuckets = 300;  // of a drawn curve, each with two points
constexpr std::size_t kFewPoints = 40;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

// One of the two drawings of a plot.
class Panel {
 public:
  Panel(const Plot& plot, const PlotSize& size, Scale scale)
      : plot_(plot),
        scale_(scale),
        width_(size.width - kLeft - kRight),
        height_(size.height - kTop - kBottom) {
    find_x();
    find_y();
  }

  std::string draw() {
    add("<g class=\"{}\" data-x0=\"{:.9g}\" data-x1=\"{:.9g}\" data-y0=\"{:.9g}\" "
        "data-y1=\"{:.9g}\">\n",
        scale_ == Scale::Log ? "log" : "lin", x_.low, x_.high, y_.low, y_.high);
    axes();
    add("<svg class=\"area\" x=\"{}\" y=\"{}\" width=\"{:.0f}\" height=\"{:.0f}\">\n", kLeft, kTop,
        width_, height_);
    for (const PlotLine& line : plot_.lines) curve(line);
    for (const PlotMark& m : plot_.marks) mark(m);
    svg_ += "</svg></g>\n";
    return std::move(svg_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(svg_), format, std::forward<Args>(args)...);
  }

  void find_x() {
    if (scale_ == Scale::Linear) x_.add(0);
    for (const PlotLine& line : plot_.lines)
      for (const Point& p : line.series->points())
        if (scale_ == Scale::Linear || p.x > 0) x_.add(p.x);
    if (x_.low == x_.high && x_.high > 0) x_.low = 0.5 * x_.high;
    if (x_.empty() || x_.low == x_.high) x_ = {scale_ == Scale::Linear ? 0. : 1., 10};
  }

  void find_y() {
    const bool skip = plot_.skip_start && scale_ == Scale::Linear;
    const double from = skip ? x_.low + 0.1 * (x_.high - x_.low) : x_.low;
    for (const PlotLine& line : plot_.lines)
      for (const Point& p : line.series->points())
        if (p.x >= from) y_.add(p.y);
    if (y_.empty() || (y_.low == 0 && y_.high == 0)) y_ = {0, plot_.percent ? 0.01 : 1};
    const double span = y_.high - y_.low;
    const double room = span > 0 ? 0.05 * span : std::max(1e-12, 0.1 * std::abs(y_.high));
    const bool from_zero = y_.low >= 0 && y_.low <= 0.25 * y_.high;
    y_ = {from_zero ? 0 : y_.low - room, y_.high + room};
  }

  double x_of(double x) const { return width_ * position_on(scale_, x, x_.low, x_.high); }
  double y_of(double y) const { return height_ * (1 - (y - y_.low) / (y_.high - y_.low)); }

  std::vector<double> x_ticks() const {
    if (scale_ == Scale::Linear) return round_ticks(x_.low, x_.high, width_ > 600 ? 8 : 4);
    std::vector<double> ticks;
    for (double power = std::pow(10., std::ceil(std::log10(x_.low) - 1e-9));
         power <= x_.high * (1 + 1e-9); power *= 10)
      ticks.push_back(power);
    return ticks.empty() ? std::vector<double>{x_.low, x_.high} : ticks;
  }

  void axes() {
    const double bottom = kTop + height_;
    for (const double tick : round_ticks(y_.low, y_.high)) {
      const double at = kTop + y_of(tick);
      add("<path class=\"grid\" d=\"M{:.0f},{:.1f}h{:.0f}\"/><text x=\"{:.0f}\" y=\"{:.1f}\" "
          "text-anchor=\"end\">{}</text>\n",
          kLeft, at, width_, kLeft - 6, at + 4,
          plot_.percent ? short_number(100 * tick) + "%" : short_number(tick));
    }
    for (const double tick : x_ticks())
      add("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n", kLeft + x_of(tick),
          bottom + 16, short_count(tick));
    add("<text class=\"name\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>\n",
        kLeft + width_, bottom + 29, escape(plot_.x_name));
    add("<path class=\"axis\" d=\"M{:.0f},{:.0f}h{:.0f}\"/>\n", kLeft, bottom, width_);
  }

  void curve(const PlotLine& line) {
    const std::vector<Point> points = thin(line.series->points(), scale_, kBuckets);
    if (points.empty()) return;
    const char* kind = line.kind == PlotLine::Kind::Raw ? "raw" : "smooth";
    add("<polyline class=\"{} r{}\" data-name=\"{}\" points=\"", kind, line.run, escape(line.name));
    for (const Point& p : points) add("{:.1f},{:.2f} ", x_of(p.x), y_of(p.y));
    svg_.back() = '"';
    svg_ += "/>\n";
    if (line.kind != PlotLine::Kind::Points || points.size() > kFewPoints) return;
    for (const Point& p : points)
      add("<circle class=\"r{}\" cx=\"{:.1f}\" cy=\"{:.2f}\" r=\"2.6\"/>", line.run, x_of(p.x),
          y_of(p.y));
    svg_ += '\n';
  }

  void mark(const PlotMark& m) {
    const double at = x_of(m.x);
    add("<g class=\"mark r{}\"><path d=\"M{:.1f},0v{:.0f}\"/><path class=\"flag\" "
        "d=\"M{:.1f},0h-4l4,8l4,-8z\"/><title>{}</title></g>\n",
        m.run, at, height_, at, escape(m.tooltip));
  }

  const Plot& plot_;
  Scale scale_;
  double width_, height_;
  Range x_, y_;
  std::string svg_;
};

}  // namespace

std::string short_number(double value) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size >= 1e5) return short_count(value);
  return fmt::format("{:.4g}", value);
}

std::string short_count(double value) {
  constexpr struct {
    double size;
    char letter;
  } units[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
  for (const auto& unit : units)
    if (std::abs(value) >= unit.size * (1 - 1e-9))
      return fmt::format("{:.4g}{}", value / unit.size, unit.letter);
  return fmt::format("{:.4g}", value);
}

std::vector<double> round_ticks(double low, double high, int about) {
  const double wanted = (high - low) / about;
  const double power = std::pow(10., std::floor(std::log10(wanted)));
  double step = 10 * power;
  for (const double factor : {5., 2., 1.})
    if (factor * power >= wanted * 0.8) step = factor * power;
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (int i = 0; i <= 3 * about; ++i) {
    const double tick = (first + i) * step;
    if (!(tick <= high + 1e-9 * step)) break;
    ticks.push_back(tick == 0 ? 0 : tick);  // not "-0"
  }
  return ticks;
}

std::string plot_svg(const Plot& plot, const PlotSize& size) {
  std::string svg = fmt::format(
      "<svg class=\"plot\" viewBox=\"0 0 {:.0f} {:.0f}\" data-left=\"{}\" data-top=\"{}\" "
      "data-width=\"{:.0f}\" data-height=\"{:.0f}\"{} role=\"img\" aria-label=\"{}\">\n"
      "<text class=\"title\" x=\"14\" y=\"20\">{}</text>\n",
      size.width, size.height, kLeft, kTop, size.width - kLeft - kRight,
      size.height - kTop - kBottom, plot.percent ? " data-percent=\"1\"" : "", escape(plot.title),
      escape(plot.title));
  for (const Scale scale : {Scale::Linear, Scale::Log}) svg += Panel(plot, size, scale).draw();
  return svg + "<path class=\"cursor\" d=\"\"/></svg>\n";
}

}  // namespace minke::page
