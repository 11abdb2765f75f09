// Curves over one x axis as an SVG picture, drawn twice: with a linear and with a logarithmic x
// axis, of which the page shows one (classes "lin" and "log"). Colours and sizes of text are the
// page's (page/report_assets.h), whose script also shows the values under the pointer: it reads
// them back from the coordinates, so nothing is in the page twice.
#pragma once
#include <string>
#include <vector>

#include "page/series.h"

namespace minke::page {

// Shortest form with about four digits: "2.31", "1.2e-05", of a count "14.8T".
std::string short_number(double value);
std::string short_count(double value);

struct PlotLine {
  std::string name;  // under the pointer
  int run = 0;       // gives the colour, and is hidden with the run
  enum class Kind : std::uint8_t { Raw, Smooth, Points } kind = Kind::Smooth;
  const Series* series = nullptr;
};

struct PlotMark {  // a vertical line with a flag
  double x = 0;
  int run = 0;
  std::string tooltip;
};

struct Plot {
  std::string title;
  std::string x_name = "tokens";
  std::vector<PlotLine> lines = {};
  std::vector<PlotMark> marks = {};
  // The linear plot's y axis spans what comes after the first tenth of x: what a curve falls from
  // at its beginning would press the rest flat.
  bool skip_start = false;
  bool percent = false;  // y is a share
};

struct PlotSize {
  double width = 440, height = 250;  // of the picture's own units, in which text is 12 high
};

std::string plot_svg(const Plot& plot, const PlotSize& size = {});

// 1, 2 or 5 times a power of ten, about five of them within [low, high]; at least one step.
std::vector<double> round_ticks(double low, double high, int about = 5);

}  // namespace minke::page
