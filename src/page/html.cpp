#include "page/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace minke::page {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1f2328; --soft: #6a737d;
  --line: #d9dee3;
  --c0: #3b76c4; --c1: #e8943a; --c2: #3f9a63; --c3: #b8c0c8; --c4: #8b6bc0; --c5: #c9577b;
  --c6: #37a3a8; --c7: #a58b3a; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --ink: #e3e8ed; --soft: #97a1ab; --line: #333b44;
    --c0: #5b93da; --c1: #e0923f; --c2: #4fae76; --c3: #535d67; --c4: #a288d3; --c5: #d8708f;
    --c6: #4bb5ba; --c7: #bda352; } }
body { margin: 2.5rem auto; max-width: 76rem; padding: 0 1.5rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p { max-width: 52rem; color: var(--soft); margin: .3rem 0 .8rem; }
.picture { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; padding: .4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem; border-bottom: 1px solid var(--line); text-align: right; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.bar { display: grid; grid-template-columns: 9rem 1fr 11rem; gap: .8rem; align-items: center;
  margin: .18rem 0; font-variant-numeric: tabular-nums; }
.bar > span:last-child { color: var(--soft); }
.track { display: flex; height: 1.05rem; border-radius: 3px; overflow: hidden; }
.track i { display: block; height: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: .5rem 0; color: var(--soft); }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .4rem; vertical-align: -1px; }
)";
constexpr std::size_t kColours = 8;

std::string colour(std::size_t i) {
  return fmt::format("var(--c{})", i % kColours);
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n') out += c;
    }
  }
  return out;
}

HtmlPage::HtmlPage(std::string_view title) : title_(escape(title)) {}

void HtmlPage::heading(std::string_view text) {
  body_ += "<h2>" + escape(text) + "</h2>\n";
}

void HtmlPage::paragraph(std::string_view text) {
  body_ += "<p>" + escape(text) + "</p>\n";
}

void HtmlPage::table(const Table& table) {
  body_ += "<div class=\"wide\"><table>\n<tr>";
  for (const std::string& column : table.columns) body_ += "<th>" + escape(column) + "</th>";
  body_ += "</tr>\n";
  for (const auto& row : table.rows) {
    body_ += "<tr>";
    for (const std::string& cell : row) body_ += "<td>" + escape(cell) + "</td>";
    body_ += "</tr>\n";
  }
  body_ += "</table></div>\n";
}

void HtmlPage::bars(const Bars& bars) {
  double longest = 0;
  for (const Bars::Bar& bar : bars.bars) {
    double sum = 0;
    for (const double part : bar.parts) sum += part;
    longest = std::max(longest, sum);
  }
  body_ += "<div class=\"legend\">";
  for (std::size_t i = 0; i < bars.names.size(); ++i)
    body_ += fmt::format("<span><i style=\"background:{}\"></i>{}</span>", colour(i),
                         escape(bars.names[i]));
  body_ += "</div>\n";
  for (const Bars::Bar& bar : bars.bars) {
    body_ +=
        fmt::format("<div class=\"bar\"><span>{}</span><span class=\"track\">", escape(bar.label));
    for (std::size_t i = 0; i < bar.parts.size(); ++i)
      if (bar.parts[i] > 0)
        body_ += fmt::format("<i style=\"width:{:.4f}%;background:{}\" title=\"{}: {:.5g}\"></i>",
                             100 * bar.parts[i] / longest, colour(i),
                             i < bars.names.size() ? escape(bars.names[i]) : "", bar.parts[i]);
    body_ += fmt::format("</span><span>{}</span></div>\n", escape(bar.note));
  }
}

void HtmlPage::picture(std::string_view svg) {
  body_ += "<div class=\"picture\">\n";
  body_ += svg;
  body_ += "</div>\n";
}

std::string HtmlPage::finish() const {
  const std::string script = script_.empty() ? "" : "<script>" + script_ + "</script>\n";
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'{5}\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n"
      "<style>{1}{2}</style>\n</head>\n<body>\n<h1>{0}</h1>\n{3}{4}</body>\n</html>\n",
      title_, kStyle, style_, body_, script, script.empty() ? "" : "; script-src 'unsafe-inline'");
}

}  // namespace minke::page
