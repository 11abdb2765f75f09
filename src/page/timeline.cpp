#include "page/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "page/html.h"

namespace minke::page {
namespace {

constexpr double kRow = 24, kGap = 5, kTop = 64, kLegend = 44, kCharacter = 6.6;
constexpr double kNarrowest = 1000, kWidest = 6400;
constexpr double kReadable = 18;  // px of a span that holds two digits

// A short span decides: three quarters of them then hold their label.
double plot_width(const Timeline& t, double duration) {
  std::vector<double> lengths;
  for (const Timeline::Row& row : t.rows)
    for (const Span& span : row.spans)
      if (!span.label.empty()) lengths.push_back(span.end - span.begin);
  if (lengths.empty() || duration <= 0) return kNarrowest;
  const auto quarter = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 4);
  std::nth_element(lengths.begin(), quarter, lengths.end());
  if (*quarter <= 0) return kNarrowest;
  return std::clamp(kReadable * duration / *quarter, kNarrowest, kWidest);
}

// 1, 2 or 5 times a power of ten, about `about` long.
double round_step(double about) {
  const double power = std::pow(10.0, std::floor(std::log10(about)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= about) return factor * power;
  return 10 * power;
}

std::string style_sheet(const Timeline& t) {
  const auto fills = [&](bool dark) {
    std::string rules;
    for (std::size_t i = 0; i < t.styles.size(); ++i)
      rules += fmt::format(".tl .s{} {{ fill: {} }} ", i,
                           escape(dark ? t.styles[i].dark : t.styles[i].light));
    return rules;
  };
  return fmt::format(
      "<style>\n.tl text {{ font: 12px system-ui, 'Segoe UI', 'Liberation Sans', Arial, "
      "sans-serif; "
      "fill: #1f2328; font-variant-numeric: tabular-nums }}\n"
      ".tl .title {{ font-size: 15px; font-weight: 600 }} .tl .soft {{ fill: #6a737d }} "
      ".tl .note {{ font-size: 12px; font-weight: 400 }}\n"
      ".tl .in {{ font-size: 11px; text-anchor: middle; fill: #14181d; pointer-events: none }}\n"
      ".tl .ground {{ fill: #ffffff }} .tl .lane {{ fill: #eef1f4 }} "
      ".tl .grid {{ stroke: #d9dee3 }}\n{}\n"
      "@media (prefers-color-scheme: dark) {{\n.tl text {{ fill: #e3e8ed }} "
      ".tl .soft {{ fill: #97a1ab }} .tl .in {{ fill: #101418 }}\n"
      ".tl .ground {{ fill: #14181d }} .tl .lane {{ fill: #222930 }} "
      ".tl .grid {{ stroke: #333b44 }}\n{}\n}}\n</style>\n",
      fills(false), fills(true));
}

struct Canvas {
  const Timeline& timeline;
  double left, width, duration;
  std::string svg;

  double x(double time) const { return left + (duration > 0 ? time / duration * width : 0); }
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(svg), format, std::forward<Args>(args)...);
  }

  void axis(double bottom) {
    const double step = duration > 0 ? round_step(duration / (width / 110)) : 1;
    for (int i = 0; i * step <= duration * (1 + 1e-9); ++i) {
      const double at = x(i * step);
      add("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
          "<text class=\"soft\" x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:.6g}</text>\n",
          at, kTop - 6, bottom, kTop - 12, i * step);
    }
  }

  void span(const Span& s, double row_top) {
    const double half = kRow / 2;
    const double top = row_top + (s.part == Span::Part::Bottom ? half : 0);
    const double height = s.part == Span::Part::Whole ? kRow : half;
    const double from = x(s.begin), length = x(s.end) - from;
    // A thin line of ground between neighbours, where there is room for it.
    const double drawn = length > 4 ? length - 1 : length;
    add("<rect class=\"s{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"", s.style,
        from, top, drawn, height - (s.part == Span::Part::Top ? 0.5 : 0));
    if (length > 8 && s.part == Span::Part::Whole) svg += " rx=\"2\"";
    if (s.tooltip.empty())
      svg += "/>";
    else
      add("><title>{}</title></rect>", escape(s.tooltip));
    if (!s.label.empty() && length >= 4 + kCharacter * static_cast<double>(s.label.size()))
      add("<text class=\"in\" x=\"{:.2f}\" y=\"{:.1f}\"{}>{}</text>", from + drawn / 2,
          top + height / 2 + (s.part == Span::Part::Whole ? 4 : 3.6),
          s.part == Span::Part::Whole ? "" : " style=\"font-size:10px\"", escape(s.label));
    svg += '\n';
  }

  void legend(double y) {
    double at = left;
    for (std::size_t i = 0; i < timeline.styles.size(); ++i) {
      const SpanStyle& style = timeline.styles[i];
      if (!style.in_legend) continue;
      add("<rect class=\"s{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"14\" rx=\"2\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
          i, at, y, at + 20, y + 11.5, escape(style.name));
      at += 44 + kCharacter * static_cast<double>(style.name.size());
    }
  }
};

}  // namespace

std::string timeline_svg(const Timeline& t) {
  double duration = 0;
  std::size_t longest_label = 0, longest_note = 0, legend = 0;
  for (const Timeline::Row& row : t.rows) {
    for (const Span& span : row.spans) duration = std::max(duration, span.end);
    longest_label = std::max(longest_label, row.label.size());
    longest_note = std::max(longest_note, row.note.size());
  }
  for (const SpanStyle& s : t.styles)
    if (s.in_legend) legend += s.name.size() * 7 + 44;
  Canvas c{t,
           24 + kCharacter * static_cast<double>(longest_label),
           plot_width(t, duration),
           duration,
           {}};
  const double bottom = kTop + static_cast<double>(t.rows.size()) * (kRow + kGap);
  const double width =
      std::max(c.left + c.width + 28 + kCharacter * static_cast<double>(longest_note),
               c.left + static_cast<double>(legend));
  const double height = bottom + kLegend;
  c.add(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"tl\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" aria-label=\"{2}\">\n",
      width, height, escape(t.title));
  c.svg += style_sheet(t);
  c.add(
      "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
      "<text class=\"title\" x=\"16\" y=\"26\">{}<tspan class=\"note soft\" "
      "dx=\"16\">{}</tspan></text>\n"
      "<text class=\"soft\" x=\"16\" y=\"{}\">{}</text>\n",
      escape(t.title), escape(t.note), kTop - 12, escape(t.time_unit));
  c.axis(bottom);
  for (std::size_t i = 0; i < t.rows.size(); ++i) {
    const Timeline::Row& row = t.rows[i];
    const double top = kTop + static_cast<double>(i) * (kRow + kGap);
    c.add(
        "<rect class=\"lane\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" rx=\"2\"/>"
        "<text x=\"16\" y=\"{:.1f}\">{}</text>"
        "<text class=\"soft\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        c.left, top, c.width, kRow, top + kRow / 2 + 4, escape(row.label), c.left + c.width + 12,
        top + kRow / 2 + 4, escape(row.note));
    for (const Span& span : row.spans) c.span(span, top);
  }
  c.legend(bottom + 14);
  return c.svg + "</svg>\n";
}

}  // namespace minke::page
