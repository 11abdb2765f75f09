// What a number of ranks do over time, as one SVG picture: a row for each, coloured spans on a time
// axis, a legend. It stands by itself, and in an HTML page; light or dark as the reader's system
// is.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace minke::page {

struct SpanStyle {  // one kind of span, with its line in the legend
  std::string name;
  std::string light, dark;  // fill, as #rrggbb
  bool in_legend = true;
};

struct Span {
  double begin = 0, end = 0;
  std::size_t style = 0;
  std::string label;    // written into the span where it is wide enough
  std::string tooltip;  // shown under the pointer
  enum class Part { Whole, Top, Bottom } part = Part::Whole;  // halves of a pair
};

struct Timeline {
  std::string title, note;  // the note stands behind the title
  std::string time_unit;    // "seconds"
  std::vector<SpanStyle> styles;
  struct Row {
    std::string label;
    std::string note;  // behind the row
    std::vector<Span> spans;
  };
  std::vector<Row> rows;
};

// Wide enough that most labels can be read, up to some screens; what is wider scrolls.
std::string timeline_svg(const Timeline& timeline);

}  // namespace minke::page
